"""A process whose tables go on changing, as the views see it, and write-protection through the table editor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ...arch.linux import Linux, LinuxFlags, Marker
from ...mmu.editor import Reason, TableEditor
from .inputs import PageEntry, VmaFacts, is_hugetlb
from .tables import ProcessTables


@dataclass(frozen=True)
class LiveProcess:
    """Reads VMAs and tables anew at every call; satisfies views.inputs.MappedProcess.

    `areas` returns the VMAs in ascending order.
    """

    name: str
    tables: ProcessTables
    areas: Callable[[], Collection[VmaFacts]]

    @property
    def page_size(self) -> int:
        """Bytes of a base page."""
        return self.tables.page_size

    def vmas(self) -> Collection[VmaFacts]:
        """The VMAs in ascending order."""
        return self.areas()

    def entries(self, start: int, end: int) -> Iterator[PageEntry]:
        """The entries that map any part of a range, of hugetlb areas one for each huge page."""
        for vma in self.areas():
            low, high = max(vma.start, start), min(vma.end, end)
            if low < high:
                huge = vma.page_size if is_hugetlb(vma) else 0
                low = low // huge * huge if huge else low
                yield from self.tables.entries(low, high, huge_page_size=huge)

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that a table of PTEs covers."""
        return self.tables.pte_tables(start, end)


@dataclass(frozen=True)
class EditorProtector:
    """Write-protects for userfaultfd through the table editor (pagemap_scan.WriteProtector).

    `split` splits the PMD mapping at an address, with whatever accounting belongs to that.
    """

    editor: TableEditor
    linux: Linux
    split: Callable[[int], None]

    def uffd_wp_entry(self, entry: PageEntry) -> None:
        """pte_mkuffd_wp: no longer writable, marked; a contiguous huge page is marked in each of its entries."""
        end = entry.va + (entry.nr_pages << self.linux.paging.page_shift)
        with self.editor.batch():
            for slot in list(self.editor.slots(entry.va, end)):
                level, raw = slot.level.number, self.editor.read(slot)
                if entry.present:
                    raw = self.linux.clear(level, raw, LinuxFlags.WRITE)
                self.editor.write(slot, self.linux.set(level, raw, LinuxFlags.UFFD_WP), Reason.PROTECT)

    def uffd_wp_none(self, start: int, end: int) -> None:
        """Put uffd-wp markers into the empty PTEs of a range, tables allocated as needed."""
        marker = self.linux.marker(Marker.UFFD_WP)
        with self.editor.batch():
            for va in range(start, end, 1 << self.linux.paging.page_shift):
                slot = self.editor.ensure(va)
                if not self.editor.read(slot):
                    self.editor.write(slot, marker, Reason.MARKER)

    def split_pmd(self, va: int) -> None:
        """Split the PMD mapping at `va`."""
        self.split(va)
