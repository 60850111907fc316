"""Reading tables: arm64 contiguous blocks, huge pages of several entries, shared and looping tables."""

from __future__ import annotations

import pytest

from ptwalk.arch.linux import LinuxFlags, linux_for
from ptwalk.mmu.editor import Reason, TableEditor
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.spaces import SpaceLimitError
from ptwalk.rmap.levels import Level
from ptwalk.rmap.views.tables import CONT_PTES, ProcessTables, shared_pmd_tables

TG0 = {12: 0, 14: 2, 16: 1}
FLAGS = LinuxFlags.USER | LinuxFlags.WRITE
VA = 1 << 32


class Tables:
    """Empty tables of one architecture and page size, and an editor to fill them."""

    def __init__(self, arch: str = "arm64", shift: int = 12, root: int = 0x10000, memory: PhysicalMemory | None = None):
        self.memory = memory or PhysicalMemory()
        if memory is None:
            self.memory.add_ram(0, 1 << 26)
        tcr = 25 | 1 << 23 | TG0[shift] << 14
        arm = {"TTBR0_EL1": root, "TCR_EL1": tcr, "SCTLR_EL1": 1}
        features = {"pamax": 48, "FEAT_TGran16": 1, "FEAT_TGran64": 1}
        registers = {"CR3": root} if arch == "x86_64" else arm
        regime = regime_from_registers(arch, registers, {} if arch == "x86_64" else features)
        self.linux = linux_for(arch, "7.3", regime)
        frames = FrameAllocator(root + 0x10000, root + 0x400000, 1 << shift)
        self.editor = TableEditor(self.memory, regime, frames, linux=self.linux)
        self.process = ProcessTables(self.memory, regime, self.linux)

    def map(self, va: int, pfn: int, flags: LinuxFlags = FLAGS, depth: int = 0) -> None:
        slot = self.editor.ensure(va, depth)
        self.editor.write(slot, self.linux.page(slot.level.number, pfn, flags), Reason.MAP)


@pytest.mark.parametrize("shift", [12, 14, 16])
def test_a_contiguous_block_shares_accessed_and_dirty(shift: int) -> None:
    """contpte_ptep_get (arch/arm64/mm/contpte.c): hardware may set A and D in any one entry of the block."""
    tables, n = Tables(shift=shift), CONT_PTES[shift]
    cont = FLAGS | LinuxFlags.CONTIG
    for i in range(2 * n):
        used = LinuxFlags.YOUNG | LinuxFlags.DIRTY if i == n - 3 else LinuxFlags.NONE
        tables.map(VA + (i << shift), 0x1000 + i, cont | used)
    tables.map(VA + (2 * n << shift), 0x3000, FLAGS | LinuxFlags.YOUNG)
    tables.map(VA + (2 * n + 1 << shift), 0x3001)
    found = list(tables.process.entries(VA, VA + (2 * n + 2 << shift)))
    assert [e.young for e in found] == [True] * n + [False] * n + [True, False]
    assert [e.dirty for e in found] == [True] * n + [False] * (n + 2)
    assert [e.pfn for e in found[: 2 * n]] == list(range(0x1000, 0x1000 + 2 * n))


@pytest.mark.parametrize("shift", [12, 14, 16])
def test_a_huge_page_of_contiguous_entries_is_one_entry(shift: int) -> None:
    tables, n = Tables(shift=shift), CONT_PTES[shift]
    size = n << shift
    for i in range(2 * n):
        used = LinuxFlags.DIRTY if i == n + 1 else LinuxFlags.NONE
        tables.map(VA + (i << shift), 0x1000 + i, FLAGS | LinuxFlags.CONTIG | used)
    found = list(tables.process.entries(VA, VA + 2 * size, huge_page_size=size))
    assert [(e.va, e.nr_pages, e.pfn, e.dirty) for e in found] == [
        (VA, n, 0x1000, False),
        (VA + size, n, 0x1000 + n, True),
    ]


@pytest.mark.parametrize(("shift", "order"), [(12, 9), (14, 11), (16, 13)])
def test_pmd_sizes(shift: int, order: int) -> None:
    tables = Tables(shift=shift)
    tables.map(VA, 1 << order, depth=1)
    assert [(e.level, e.nr_pages) for e in tables.process.entries(VA, VA + 1)] == [(Level.PMD, 1 << order)]


def test_mixed_levels_come_in_the_order_of_addresses() -> None:
    tables = Tables("x86_64")
    pmd = 2 << 20
    for place in (3, 0, 5):
        tables.map(VA + place * pmd, 0x200 * (place + 1), depth=1)
    for place in (4, 1):
        for page in (511, 0, 7):
            tables.map(VA + place * pmd + (page << 12), 0x9000 + page)
    found = [e.va for e in tables.process.entries(0, 1 << 47)]
    assert found == sorted(found)
    assert len(found) == 9
    assert [e.va for e in tables.process.entries(VA + pmd + 0x7000, VA + 3 * pmd + 1)] == [
        VA + pmd + 0x7000,
        VA + pmd + 511 * 0x1000,
        VA + 3 * pmd,
    ]


def test_shared_pmd_tables_are_found() -> None:
    first = Tables("x86_64")
    second = Tables("x86_64", root=0x800000, memory=first.memory)
    first.map(VA, 0x200, depth=1)
    second.map(VA + (1 << 30), 0x400, depth=1)
    assert shared_pmd_tables([first.process, second.process]) == frozenset()
    pud = first.editor.find(VA, 2)
    assert pud is not None
    second.editor.write(second.editor.ensure(VA, 2), first.editor.read(pud), Reason.TABLE)
    shared = shared_pmd_tables([first.process, second.process])
    assert len(shared) == 1
    second.process.shared_pmd_tables = shared
    found = list(second.process.entries(VA, VA + (2 << 30), huge_page_size=2 << 20))
    assert [e.pmd_shared for e in found] == [True, False]


def test_tables_that_point_at_themselves_end() -> None:
    tables = Tables("x86_64")
    for index in range(256):
        tables.memory.write_uint(0x10000 + 8 * index, 0x10067)
    tables.process.max_tables = 50
    with pytest.raises(SpaceLimitError, match="50 tables"):
        list(tables.process.entries(0, 1 << 47))
