"""Views of tables that change: the same answers as before and after, write-protection through the editor."""

from __future__ import annotations

import pytest

from ptwalk.arch.linux import LinuxFlags, linux_for
from ptwalk.arch.linux_proc import PAGEMAP
from ptwalk.mmu.editor import EntryChange, Reason, TableEditor
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.ranges import split
from ptwalk.rmap.adopt import KernelFacts, KernelFrames
from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.levels import Level
from ptwalk.rmap.views.inputs import Vma
from ptwalk.rmap.views.live import EditorProtector, LiveProcess
from ptwalk.rmap.views.pagemap import PagemapView
from ptwalk.rmap.views.pagemap_scan import Category, ScanArgs, ScanFlags, pagemap_scan
from ptwalk.rmap.views.rules import AS_MEANT
from ptwalk.rmap.views.tables import ProcessTables

PAGE, PMD = 0x1000, 0x200000
VA = 0x40000000
FLAGS = LinuxFlags.WRITE | LinuxFlags.USER | LinuxFlags.YOUNG | LinuxFlags.DIRTY
REGISTERS = {
    "x86_64": ({"CR3": 0x1000}, {}),
    "arm64": ({"TTBR0_EL1": 0x1000, "TCR_EL1": 25 | 1 << 23, "SCTLR_EL1": 1}, {"pamax": 48}),
}


class World:
    """One process with a wp-async area of two PMDs' size: a PMD mapping, then room for PTEs."""

    def __init__(self, arch: str) -> None:
        memory = PhysicalMemory()
        memory.add_ram(0, 1 << 24)
        regime = regime_from_registers(arch, *REGISTERS[arch])
        self.linux = linux_for(arch, "7.3", regime)
        self.editor = TableEditor(memory, regime, FrameAllocator(0x2000, 0x400000), linux=self.linux)
        self.area = Vma(VA, VA + 2 * PMD, ("rd", "wr"), wp_async=True)
        self.frames = KernelFrames(Accounting(["precise"]), KernelFacts(lambda pfn: 0))
        self.process = LiveProcess("p", ProcessTables(memory, regime, self.linux), lambda: [self.area])
        self.protector = EditorProtector(self.editor, self.linux, self.split)
        self.changes: list[EntryChange] = []
        self.editor.observers.append(self.changes.extend)

    def map(self, va: int, pfn: int, depth: int) -> None:
        slot = self.editor.ensure(va, depth)
        self.editor.write(slot, self.linux.page(slot.level.number, pfn, FLAGS), Reason.MAP)

    def split(self, va: int) -> None:
        split(self.editor, self.editor.lookup(va))

    def uffd_wp(self) -> set[int]:
        view = PagemapView(self.process, self.frames, self.frames.acct.models["precise"], AS_MEANT)
        words = view.words(VA, VA + 2 * PMD)
        return {i for i, word in enumerate(words) if PAGEMAP["UFFD_WP"].get(word)}

    def protect(self, start: int, end: int) -> list[tuple[int, int]]:
        w = Category.WRITTEN
        args = ScanArgs(start, end, ScanFlags.WP_MATCHING, category_mask=w, return_mask=w | Category.PRESENT)
        found = pagemap_scan(self.process, self.frames, args, self.protector)
        return [(region.start, region.end) for region in found.regions]


@pytest.fixture(params=["x86_64", "arm64"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_entries_follow_the_tables(world: World) -> None:
    assert list(world.process.entries(VA, VA + 2 * PMD)) == []
    world.map(VA, 0x200, 1)
    world.map(VA + PMD + PAGE, 0x77, 0)
    found = list(world.process.entries(VA, VA + 2 * PMD))
    assert [(e.va, e.level, e.nr_pages, e.pfn) for e in found] == [
        (VA, Level.PMD, 512, 0x200),
        (VA + PMD + PAGE, Level.PTE, 1, 0x77),
    ]
    assert all(e.write and e.young and e.dirty for e in found)
    assert list(world.process.pte_tables(VA, VA + 2 * PMD)) == [(VA + PMD, VA + 2 * PMD)]
    assert list(world.process.entries(VA + PAGE, VA + 2 * PAGE)) == found[:1]


def test_a_scan_that_protects_goes_through_the_editor(world: World) -> None:
    world.map(VA, 0x200, 1)
    world.map(VA + PMD + PAGE, 0x77, 0)
    assert world.protect(VA, VA + 2 * PMD) == [(VA, VA + PMD), (VA + PMD + PAGE, VA + PMD + 2 * PAGE)]
    assert world.uffd_wp() == {*range(512), 513}
    assert not any(e.write for e in world.process.entries(VA, VA + 2 * PMD))
    assert {change.reason for change in world.changes} == {Reason.MAP, Reason.TABLE, Reason.PROTECT}
    assert world.protect(VA, VA + 2 * PMD) == []


def test_protecting_a_part_of_a_pmd_splits_it(world: World) -> None:
    world.map(VA, 0x200, 1)
    assert world.protect(VA + PAGE, VA + 3 * PAGE) == [(VA + PAGE, VA + 3 * PAGE)]
    assert world.uffd_wp() == {1, 2}
    found = list(world.process.entries(VA, VA + PMD))
    assert [e.pfn for e in found] == list(range(0x200, 0x400))
    assert [e.va for e in found if not e.write] == [VA + PAGE, VA + 2 * PAGE]


def test_markers_in_a_hole(world: World) -> None:
    absent = Category.PRESENT
    args = ScanArgs(
        VA, VA + 4 * PAGE, ScanFlags.WP_MATCHING, category_inverted=absent, category_mask=absent, return_mask=absent
    )
    pagemap_scan(world.process, world.frames, args, world.protector)
    assert world.uffd_wp() == {0, 1, 2, 3}
    found = pagemap_scan(world.process, world.frames, ScanArgs(VA, VA + PMD, category_mask=Category.SWAPPED))
    assert [(r.start, r.end) for r in found.regions] == [(VA, VA + 4 * PAGE)]
