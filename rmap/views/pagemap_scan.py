"""The PAGEMAP_SCAN ioctl: find pages by category, and write-protect those that match.

No category depends on a mapcount, so the answer is the same under every accounting model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Protocol

from ...arch.errors import InputError
from ..levels import Level
from .inputs import Frames, MappedProcess, PageEntry, VmaFacts, is_hugetlb
from .smaps import folio_of


class Category(IntFlag):
    """PAGE_IS_*: what a page can be.

    >>> Category.WRITTEN | Category.PRESENT
    <Category.WRITTEN|PRESENT: 10>
    """

    WPALLOWED = 1 << 0
    WRITTEN = 1 << 1
    FILE = 1 << 2
    PRESENT = 1 << 3
    SWAPPED = 1 << 4
    PFNZERO = 1 << 5
    HUGE = 1 << 6
    SOFT_DIRTY = 1 << 7
    GUARD = 1 << 8


class ScanFlags(IntFlag):
    """PM_SCAN_*."""

    WP_MATCHING = 1 << 0
    CHECK_WPASYNC = 1 << 1


NOTHING = Category(0)
_KNOWN = sum(Category)
NO_FLAGS = ScanFlags(0)


@dataclass(frozen=True)
class Region:
    """struct page_region: pages `start` to `end` have these categories."""

    start: int
    end: int
    categories: Category


@dataclass(frozen=True)
class ScanArgs:
    """struct pm_scan_arg. `vec_len` is the room for regions (None: no vector, only write-protect), 0 pages no limit.

    A page matches if its categories, `category_inverted` flipped, contain all of `category_mask` and, unless that is
    0, one of `category_anyof_mask`; `return_mask` is what regions show.
    """

    start: int
    end: int
    flags: ScanFlags = NO_FLAGS
    vec_len: int | None = 1 << 20
    max_pages: int = 0
    category_inverted: Category = NOTHING
    category_mask: Category = NOTHING
    category_anyof_mask: Category = NOTHING
    return_mask: Category = NOTHING

    @property
    def protects(self) -> bool:
        """PM_SCAN_WP_MATCHING."""
        return ScanFlags.WP_MATCHING in self.flags

    @property
    def only_written(self) -> bool:
        """The masks for which the kernel takes its short cut: whatever is not write-protected counts as written."""
        masks = (self.category_mask, self.return_mask)
        return masks == (Category.WRITTEN,) * 2 and not self.category_inverted and not self.category_anyof_mask


@dataclass
class ScanResult:
    """The regions found and walk_end, where the next scan has to go on."""

    regions: list[Region] = field(default_factory=list)
    walk_end: int = 0


class WriteProtector(Protocol):
    """Who carries the write-protection out, through the table editor."""

    def uffd_wp_entry(self, entry: PageEntry) -> None:
        """Set uffd-wp on one entry: the present bit, the swap bit, or a uffd-wp marker."""
        ...

    def uffd_wp_none(self, start: int, end: int) -> None:
        """Install uffd-wp markers in empty entries; tables are allocated where none exist."""
        ...

    def split_pmd(self, va: int) -> None:
        """split_huge_pmd at `va`."""
        ...


def page_categories(entry: PageEntry, vma: VmaFacts, frames: Frames) -> Category:
    """pagemap_page_category, pagemap_thp_category and pagemap_hugetlb_category of one entry."""
    huge = Category.HUGE if entry.level is not Level.PTE or is_hugetlb(vma) else NOTHING
    found = huge | (Category.PRESENT if entry.present else Category.SWAPPED)
    if not (entry.uffd_wp or entry.uffd_wp_marker):
        found |= Category.WRITTEN
    if entry.soft_dirty:
        found |= Category.SOFT_DIRTY
    if entry.guard_marker:
        found |= Category.GUARD
    if entry.present and entry.zero:
        found |= Category.PFNZERO
    folio = folio_of(entry, frames)
    return found | Category.FILE if folio is not None and not folio.is_anon else found


class _Full(Exception):
    """The scan stops: no more room, or enough pages."""


class _Scan:
    def __init__(self, process: MappedProcess, frames: Frames, args: ScanArgs, writer: WriteProtector | None) -> None:
        self.process, self.frames, self.args, self.writer = process, frames, args, writer
        self.result = ScanResult(walk_end=args.end)
        self.found_pages = 0

    def run(self) -> ScanResult:
        try:
            for vma in self.process.vmas():
                low, high = max(vma.start, self.args.start), min(vma.end, self.args.end)
                if low < high and self.wants(vma):
                    self.scan_vma(vma, low, high)
        except _Full:
            pass
        return self.result

    def wants(self, vma: VmaFacts) -> bool:
        """pagemap_scan_test_walk."""
        if not vma.wp_async:
            if ScanFlags.CHECK_WPASYNC in self.args.flags:
                raise InputError("an area in the range is not registered for asynchronous write-protection (EPERM)")
            if self.args.protects:
                return False
        if "pf" in vma.vm_flags:
            return False
        required = self.args.category_mask & Category.WPALLOWED
        return (self.of_vma(vma) ^ self.args.category_inverted) & required == required

    def of_vma(self, vma: VmaFacts) -> Category:
        allowed = Category.WPALLOWED if vma.wp_async else NOTHING
        return allowed | (Category.SOFT_DIRTY if "sd" in vma.vm_flags else NOTHING)

    def matches(self, categories: Category) -> bool:
        """pagemap_scan_is_interesting_page."""
        args, flipped = self.args, categories ^ self.args.category_inverted
        anyof = args.category_anyof_mask
        return flipped & args.category_mask == args.category_mask and (not anyof or bool(flipped & anyof))

    def scan_vma(self, vma: VmaFacts, start: int, end: int) -> None:
        at, entries = start, self.process.entries(start, end)
        while at < end:
            entry = next(entries, None)
            stop = end if entry is None else max(entry.va, at)
            if at < stop:
                self.empty(vma, at, stop)
            if entry is None:
                break
            at = self.one(vma, entry, stop, min(entry.va + entry.nr_pages * self.process.page_size, end))
            if at == stop:  # the PMD was split: read again
                entries = self.process.entries(at, end)

    def empty(self, vma: VmaFacts, start: int, end: int) -> None:
        """Pages without an entry: in a page table that exists, or where there is none."""
        for low, high, table in self.split_by_table(start, end):
            if table and self.shortcut(vma):
                self.short(vma, None, low, high)
            elif self.matches(self.of_vma(vma)):
                reached = self.output(self.of_vma(vma), low, high)
                if self.args.protects and not table and self.writer is not None and reached > low:
                    self.writer.uffd_wp_none(low, reached)
                self.stop_if_short(reached, high)

    def split_by_table(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        at = start
        for low, high in self.process.pte_tables(start, end):
            low, high = max(low, start), min(high, end)
            if at < low:
                yield at, low, False
            yield low, high, True
            at = high
        if at < end:
            yield at, end, False

    def shortcut(self, vma: VmaFacts) -> bool:
        return not is_hugetlb(vma) and (self.args.only_written or (self.args.protects and self.args.vec_len is None))

    def one(self, vma: VmaFacts, entry: PageEntry, start: int, end: int) -> int:
        """One entry, its pages `start` to `end`; returns where the walk goes on."""
        if entry.level is Level.PTE and self.shortcut(vma):
            self.short(vma, entry, start, end)
            return end
        categories = self.of_vma(vma) | page_categories(entry, vma, self.frames)
        if not self.matches(categories):
            return end
        saved = (list(self.result.regions), self.found_pages)
        reached = self.output(categories, start, end)
        protect = self.args.protects and Category.WRITTEN in categories and reached > start
        if protect and self.writer is not None:
            if reached - start == entry.nr_pages * self.process.page_size:
                self.writer.uffd_wp_entry(entry)
            else:
                self.result.regions, self.found_pages = saved
                if is_hugetlb(vma):  # a part of a huge page cannot be protected: the scan ends before it
                    self.result.walk_end = start
                    raise _Full
                self.writer.split_pmd(entry.va)
                return start
        self.stop_if_short(reached, end)
        return end

    def short(self, vma: VmaFacts, entry: PageEntry | None, start: int, end: int) -> None:
        """The kernel's short cut over one page table: empty entries count as written like any without uffd-wp."""
        if entry is not None and (entry.uffd_wp or entry.uffd_wp_marker):
            return
        reached = self.output(self.of_vma(vma) | Category.WRITTEN, start, end)
        if self.args.protects and self.writer is not None and reached > start:
            if entry is not None:
                self.writer.uffd_wp_entry(entry)
            else:
                self.writer.uffd_wp_none(start, reached)
        self.stop_if_short(reached, end)

    def stop_if_short(self, reached: int, end: int) -> None:
        if reached < end:
            self.result.walk_end = reached
            raise _Full

    def output(self, categories: Category, start: int, end: int) -> int:
        """pagemap_scan_output: report what fits, return where that ends."""
        if self.args.vec_len is None:
            return end
        categories &= self.args.return_mask
        size, limit = self.process.page_size, self.args.max_pages
        if limit:
            end = min(end, start + (limit - self.found_pages) * size)
        if end <= start:
            return start
        regions = self.result.regions
        last = regions[-1] if regions else None
        if last is not None and last.end == start and last.categories == categories:
            regions[-1] = Region(last.start, end, categories)
        elif len(regions) < self.args.vec_len:
            regions.append(Region(start, end, categories))
        else:
            return start
        self.found_pages += (end - start) // size
        return end


def pagemap_scan(
    process: MappedProcess, frames: Frames, args: ScanArgs, writer: WriteProtector | None = None
) -> ScanResult:
    """ioctl(PAGEMAP_SCAN); InputError for the kernel's EINVAL and EPERM.

    With WP_MATCHING the matching pages are write-protected through `writer`.
    """
    if args.start % process.page_size or args.start > args.end:
        text = "a scan starts on a page boundary and ends behind it (EINVAL)"
        raise InputError(text, field="start", value=args.start)
    masks = args.category_inverted | args.category_mask | args.category_anyof_mask | args.return_mask
    if masks & ~_KNOWN:
        raise InputError("a mask names categories there are not (EINVAL)", field="category_mask", value=int(masks))
    if args.vec_len == 0:
        raise InputError("a vector of regions needs room for one (EINVAL)", field="vec_len", value=0)
    if args.protects and writer is None:
        raise InputError("PM_SCAN_WP_MATCHING needs somebody who writes the entries", field="flags")
    return _Scan(process, frames, args, writer).run()
