"""Break-before-make in the table editor: what arm64 forbids to change live is invalid in between (Arm ARM D8.16.1).

The expectations are those of Linux's pgattr_change_is_safe: permissions, access and dirty state may change live, the
address, the memory type and the Contiguous bit may not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ptwalk.arch.linux import LinuxFlags, linux_for
from ptwalk.mmu.editor import EntryChange, Reason, TableEditor
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory

ARM64 = {"TTBR0_EL1": 0x10000, "SCTLR_EL1": 1, "MAIR_EL1": 0x44FF}
GRANULES = {"4K": (4096, 16), "16K": (16384, 17 | 2 << 14), "64K": (65536, 16 | 1 << 14)}
PRESENT = LinuxFlags.USER | LinuxFlags.YOUNG


@dataclass
class Spy(PhysicalMemory):
    """Memory that remembers what was written to it."""

    written: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def write_uint(self, pa: int, value: int, size: int = 8) -> None:
        self.written.append((pa, value))
        super().write_uint(pa, value, size)


def _editor(arch: str, granule: str = "4K") -> tuple[TableEditor, Spy, list[EntryChange]]:
    page, tcr = GRANULES[granule]
    memory = Spy()
    memory.add_ram(0x10000, 64 * page)
    registers = {"CR3": 0x10000} if arch == "x86_64" else {**ARM64, "TCR_EL1": tcr | 1 << 23 | 5 << 32}
    regime = regime_from_registers(arch, registers, {} if arch == "x86_64" else {"pamax": 48})
    frames = FrameAllocator(0x10000 + page, 0x10000 + 64 * page, page)
    editor = TableEditor(memory, regime, frames, linux=linux_for(arch, "7.3", regime))
    changes: list[EntryChange] = []
    editor.observers.append(lambda batch: changes.extend(batch))
    return editor, memory, changes


def _rewritten(arch: str, granule: str, old: int, new: int) -> tuple[EntryChange, list[int]]:
    editor, memory, changes = _editor(arch, granule)
    slot = editor.ensure(0)
    editor.write(slot, old, Reason.MAP)
    memory.written.clear()
    changes.clear()
    editor.write(slot, new, Reason.PROTECT)
    return changes[0], [value for pa, value in memory.written if pa == slot.pa]


@pytest.mark.parametrize("granule", GRANULES)
def test_contiguous_and_address_change_by_way_of_invalid(granule: str) -> None:
    editor, _, _ = _editor("arm64", granule)
    linux = editor.linux
    assert linux is not None
    level = editor.ensure(0).level.number
    old = linux.page(level, 0x100, PRESENT)
    folded, moved = linux.set(level, old, LinuxFlags.CONTIG), linux.page(level, 0x200, PRESENT)
    for new, word in ((folded, "Contiguous"), (moved, "address")):
        change, seen = _rewritten("arm64", granule, old, new)
        assert seen == [0, new]
        assert word in change.broke


@pytest.mark.parametrize("granule", GRANULES)
def test_permissions_and_dirty_state_change_live(granule: str) -> None:
    editor, _, _ = _editor("arm64", granule)
    linux = editor.linux
    assert linux is not None
    level = editor.ensure(0).level.number
    old = linux.page(level, 0x100, PRESENT | LinuxFlags.WRITE | LinuxFlags.DIRTY)
    for flags in (LinuxFlags.WRITE, LinuxFlags.YOUNG):
        new = linux.clear(level, old, flags)
        assert new != old
        change, seen = _rewritten("arm64", granule, old, new)
        assert (seen, change.broke) == ([new], "")


def test_x86_needs_no_break() -> None:
    change, seen = _rewritten("x86_64", "4K", 0x100067, 0x200067)
    assert (seen, change.broke) == ([0x200067], "")


def test_unmapping_and_mapping_need_no_break() -> None:
    editor, _, changes = _editor("arm64")
    slot = editor.ensure(0)
    assert editor.linux is not None
    editor.write(slot, editor.linux.page(slot.level.number, 1, PRESENT), Reason.MAP)
    editor.write(slot, 0, Reason.UNMAP)
    assert {change.broke for change in changes} == {""}
