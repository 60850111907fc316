"""Files and areas: what a process maps where, with which rights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..folio import Folio, Kind
from ..runs import PageRuns
from ..views.inputs import Vma

WRITABLE, READ_ONLY, GONE = range(3)
"""What `Area.pages` tells of a page: VM_WRITE, no VM_WRITE, or unmapped (munmap)."""


@dataclass(eq=False)
class File:
    """A file's page cache: which folio holds which pages. `huge` is the order of a hugetlb file's pages, else 0.

    `swapped` are shmem's pages in swap, by slot.
    """

    name: str
    kind: Kind
    nr_pages: int
    huge: int = 0
    folios: dict[int, Folio] = field(default_factory=dict)
    swapped: dict[int, int] = field(default_factory=dict)

    def at(self, page: int) -> tuple[int, Folio] | None:
        """The first page and the folio that hold a page of the file."""
        starts = sorted(self.folios)
        nth = bisect_right(starts, page) - 1
        if nth < 0 or page >= starts[nth] + self.folios[starts[nth]].nr_pages:
            return None
        return starts[nth], self.folios[starts[nth]]

    def first_page(self, folio: Folio) -> int:
        """Where a folio of this file begins, in pages."""
        return next(first for first, known in self.folios.items() if known is folio)


@dataclass(eq=False)
class Area:
    """A VMA under a name; munmap and mprotect cut it into several in the eyes of /proc.

    `file` is None for anonymous memory, `private` (not VM_SHARED) matters for files only; `offset` is the file's page
    at the area's first. `anon_vma`: a private page was made here, so that fork copies the area's page tables. `huge` is
    the order of a hugetlb area's pages, else 0.
    """

    name: str
    start: int
    nr_pages: int
    page_size: int
    pages: PageRuns
    file: File | None = None
    offset: int = 0
    private: bool = False
    anon_vma: bool = False
    huge: int = 0

    @property
    def end(self) -> int:
        """The address behind the area."""
        return self.va(self.nr_pages)

    @property
    def is_cow(self) -> bool:
        """is_cow_mapping: a write makes a private copy."""
        return self.file is None or self.private

    def va(self, page: int) -> int:
        """The address of a page."""
        return self.start + page * self.page_size

    def page(self, va: int) -> int:
        """The page at an address."""
        return (va - self.start) // self.page_size

    def writable(self, va: int) -> bool:
        """VM_WRITE at an address."""
        return self.pages[self.page(va)] == WRITABLE

    def copy(self) -> Area:
        """The child's copy at fork."""
        where = (self.name, self.start, self.nr_pages, self.page_size, self.pages.copy())
        return Area(*where, self.file, self.offset, self.private, self.anon_vma, self.huge)

    def vmas(self) -> Iterator[Vma]:
        """The VMAs that are left of it, ascending."""
        for first, n, rights in self.pages.runs():
            if rights != GONE:
                yield self._vma(first, n, rights == WRITABLE)

    def _vma(self, first: int, n: int, write: bool) -> Vma:
        flags = ["rd", "wr"] if write else ["rd"]
        flags += ["sh", "mr", "mw", "me", "ms"] if self.file is not None and not self.private else ["mr", "mw", "me"]
        flags += ["ac"] if self.is_cow and write else []
        flags += ["ht"] if self.huge else []
        name, inode = ("", 0) if self.file is None else (f"/{self.file.name}", 1)
        offset = (self.offset + first) * self.page_size if self.file else 0
        vma = Vma(self.va(first), self.va(first + n), flags, name, offset, inode=inode)
        vma.page_size = vma.mmu_page_size = self.page_size << self.huge
        if self.file is not None and self.file.swapped:
            pages = range(self.offset + first, self.offset + first + n)
            vma.swapped_shmem_pages = sum(page in pages for page in self.file.swapped)
        return vma
