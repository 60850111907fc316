"""/proc/PID/pagemap: one little-endian u64 for each base page of the address space."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass

from ...arch.errors import InputError
from ...arch.linux_proc import PAGEMAP, PAGEMAP_SWAP
from ..figures import pagemap_exclusive
from ..folio import Folio
from ..models import Model
from .inputs import Frames, MappedProcess, PageEntry, State, VmaFacts, is_hugetlb
from .rules import ProcRules
from .smaps import folio_of

PM_PFRAME = PAGEMAP.mask("PFRAME")
PM_SOFT_DIRTY = PAGEMAP.mask("SOFT_DIRTY")
PM_MMAP_EXCLUSIVE = PAGEMAP.mask("MMAP_EXCLUSIVE")
PM_UFFD_WP = PAGEMAP.mask("UFFD_WP")
PM_GUARD_REGION = PAGEMAP.mask("GUARD_REGION")
PM_FILE = PAGEMAP.mask("FILE")
PM_SWAP = PAGEMAP.mask("SWAP")
PM_PRESENT = PAGEMAP.mask("PRESENT")
_OFFSET = PAGEMAP_SWAP["SWAP_OFFSET"].shift


@dataclass(frozen=True)
class PagemapView:
    """pagemap of one process under one model; `show_pfn` is CAP_SYS_ADMIN, without it frames read 0."""

    process: MappedProcess
    frames: Frames
    model: Model
    rules: ProcRules
    show_pfn: bool = True

    def vma_words(self, vma: VmaFacts, start: int, end: int) -> array[int]:
        """The words of `start` to `end`, both inside the VMA and multiples of the page size."""
        size = self.model.rules.page_size
        everywhere = PM_SOFT_DIRTY if "sd" in vma.vm_flags else 0
        words = array("Q", [everywhere]) * ((end - start) // size)
        if "pf" in vma.vm_flags:  # the walk takes a PFNMAP area for a hole
            return words
        for entry in self.process.entries(start, end):
            first = (entry.va - start) // size
            skip = max(-first, 0)
            new = self.entry_words(entry, vma, skip, min(entry.nr_pages, len(words) - first))
            for at, word in enumerate(new, first + skip):
                words[at] |= word
        return words

    def entry_words(self, entry: PageEntry, vma: VmaFacts, first: int, end: int) -> list[int]:
        """The words of pages `first` to `end` of one entry."""
        folio = folio_of(entry, self.frames)
        flags, frame, step = self._flags(entry, vma, folio)
        if not self.show_pfn:
            frame = step = 0
        pages = range(first, end)
        if entry.nr_pages > 1 and folio is not None and self._each_page(entry, folio):
            page = entry.pfn - folio.pfn
            exclusive = [pagemap_exclusive(self.model, folio, page + i) for i in pages]
            return [frame + i * step | flags | PM_MMAP_EXCLUSIVE * x for i, x in zip(pages, exclusive, strict=True)]
        if folio is not None and self._may_be_exclusive(entry):
            page = entry.pfn - folio.pfn
            if pagemap_exclusive(self.model, folio, page, pmd_shared=entry.pmd_shared):
                flags |= PM_MMAP_EXCLUSIVE
        return [frame + i * step | flags for i in pages]

    def _each_page(self, entry: PageEntry, folio: Folio) -> bool:
        return self._may_be_exclusive(entry) and self.rules.exclusive_each_page and not folio.kind.is_hugetlb

    def _may_be_exclusive(self, entry: PageEntry) -> bool:
        return entry.present or (not self.rules.exclusive_needs_present and entry.state is not State.MIGRATION)

    def _flags(self, entry: PageEntry, vma: VmaFacts, folio: Folio | None) -> tuple[int, int, int]:
        """(flags without MMAP_EXCLUSIVE, frame field of the first page, its increment from page to page)."""
        flags = PM_FILE if folio is not None and not folio.is_anon else 0
        if entry.soft_dirty and not is_hugetlb(vma):
            flags |= PM_SOFT_DIRTY
        if entry.uffd_wp or entry.uffd_wp_marker:
            flags |= PM_UFFD_WP
        if entry.present:
            return flags | PM_PRESENT, entry.pfn, 1
        if is_hugetlb(vma):  # pagemap_hugetlb_range looks at the uffd bit of such an entry only
            return flags & PM_UFFD_WP, 0, 0
        if entry.guard_marker and self.rules.guard_region:
            flags |= PM_GUARD_REGION
        offset = entry.pfn if entry.state.has_pfn else entry.swap_offset
        return flags | PM_SWAP, (entry.swap_type | offset << _OFFSET) & PM_PFRAME, 1 << _OFFSET

    def words(self, start: int, end: int) -> array[int]:
        """The words of any page-aligned range; addresses outside every VMA read 0."""
        size = self.model.rules.page_size
        words = array("Q", [0]) * ((end - start) // size)
        for vma in self.process.vmas():
            low, high = max(vma.start, start), min(vma.end, end)
            if low < high:
                words[(low - start) // size : (high - start) // size] = self.vma_words(vma, low, high)
        return words

    def read(self, offset: int, size: int) -> bytes:
        """read() at a file offset, both in bytes; InputError (the kernel's EINVAL) unless multiples of 8."""
        if offset % 8 or size % 8 or offset < 0 or size < 0:
            raise InputError("pagemap is read in multiples of 8 bytes (EINVAL)", field="offset", value=offset)
        page = self.model.rules.page_size
        words = self.words(offset // 8 * page, (offset + size) // 8 * page)
        if sys.byteorder == "big":
            words.byteswap()
        return words.tobytes()


def decode(word: int) -> str:
    """A word in people's form: the frame or the swap slot, then the flags that are set.

    >>> decode(0xa100000000012345)
    'PFRAME=0x12345|MMAP_EXCLUSIVE|FILE|PRESENT'
    >>> decode(0x4000000000000029)
    'SWAP_TYPE=0x9|SWAP_OFFSET=0x1|SWAP'
    """
    return (PAGEMAP_SWAP if word & PM_SWAP else PAGEMAP).flags(word)
