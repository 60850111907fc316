"""A captured process: its VMAs, and its page tables read once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from ...arch.errors import InputError
from ..mm_id import Mm
from ..observer import Run, joined, mapped_folio
from ..views.inputs import PageEntry, VmaFacts, is_hugetlb
from ..views.tables import ProcessTables
from .frames import KernelFrames


@dataclass
class AdoptedProcess:
    """A process with its VMAs and its tables, each entry read once; satisfies views.inputs.MappedProcess.

    `outside` lists addresses of entries that lie in no VMA, `refused` the entries that Linux has no reading of and
    those that a model would not count, in words.
    """

    name: str
    areas: Sequence[VmaFacts]
    tables: ProcessTables
    mm: Mm
    outside: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _by_va: list[PageEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        at = 0
        for vma in self.areas:
            self.outside += [entry.va for entry in self.tables.raw(at, vma.start)]
            at = vma.end
            self._by_va += self._read(vma)
        self.outside += [entry.va for entry in self.tables.raw(at, self.tables.tree.va_end)]

    def _read(self, vma: VmaFacts) -> Iterator[PageEntry]:
        if is_hugetlb(vma):
            yield from self.tables.entries(vma.start, vma.end, huge_page_size=vma.page_size)
            return
        special = self.tables.linux.software["SPECIAL"].mask if "pf" in vma.vm_flags else 0
        for raw in self.tables.raw(vma.start, vma.end):
            if not raw.raw & special:  # a device mapping has thousands of entries that no view looks at
                try:
                    yield self.tables.page_entry(raw)
                except InputError as error:
                    self.refused.append(str(error))

    @property
    def page_size(self) -> int:
        """Bytes of a base page."""
        return self.tables.page_size

    def vmas(self) -> Collection[VmaFacts]:
        """The VMAs in ascending order."""
        return self.areas

    def entries(self, start: int, end: int) -> Iterator[PageEntry]:
        """The entries that map any part of a range."""
        first = bisect_left(self._by_va, start, key=attrgetter("va"))
        if first and self._by_va[first - 1].va + self._by_va[first - 1].nr_pages * self.page_size > start:
            first -= 1
        for at in range(first, len(self._by_va)):
            entry = self._by_va[at]
            if entry.va >= end:
                return
            yield entry

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that a table of PTEs covers."""
        return self.tables.pte_tables(start, end)


def runs(process: AdoptedProcess, frames: KernelFrames) -> Iterator[Run]:
    """The mappings of a process outside hugetlb areas, as the views see them."""
    pairs = ((entry, mapped_folio(entry, frames)) for entry in process.entries(0, process.tables.tree.va_end))
    counted = ((e, folio) for e, folio in pairs if folio is not None and not folio.kind.is_hugetlb)
    return joined((folio, e.level, e.pfn - folio.pfn, e.nr_pages) for e, folio in counted)
