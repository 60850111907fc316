"""PAGEMAP_SCAN: categories against the kernel's own pagemap words, masks against a naive evaluation, protection."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from verified_captures import NEW_ARM, OLD_SWAP, P, adopted

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux_proc import PAGEMAP
from ptwalk.rmap.levels import Level
from ptwalk.rmap.views.inputs import PageEntry, State, Vma
from ptwalk.rmap.views.pagemap_scan import Category, Region, ScanArgs, ScanFlags, pagemap_scan

SEED = 20261123
PAGE = 4096
ALL = Category(0x1FF)
W, PRESENT, SWAPPED, HUGE = Category.WRITTEN, Category.PRESENT, Category.SWAPPED, Category.HUGE
FROM_PAGEMAP = {
    Category.PRESENT: "PRESENT",
    Category.SWAPPED: "SWAP",
    Category.FILE: "FILE",
    Category.GUARD: "GUARD_REGION",
    Category.SOFT_DIRTY: "SOFT_DIRTY",
}


def pages_of(regions: list[Region]) -> dict[int, Category]:
    return {va: region.categories for region in regions for va in range(region.start, region.end, PAGE)}


def from_pagemap(word: int) -> Category:
    """What the kernel's pagemap word of a page says of its categories."""
    found = Category(0)
    for category, name in FROM_PAGEMAP.items():
        if PAGEMAP[name].get(word):
            found |= category
    in_use = found & (Category.PRESENT | Category.SWAPPED)
    return found | Category.WRITTEN if in_use and not PAGEMAP["UFFD_WP"].get(word) else found


@pytest.mark.parametrize(("name", "tag"), [(P, "A"), (P, "B"), (OLD_SWAP, "C"), (NEW_ARM, "A")])
def test_categories_are_those_of_the_captured_pagemap(name: str, tag: str) -> None:
    one = adopted(name, 4)
    process = next(p for p in one.processes if p.name == tag)
    pagemap = one.checkpoint.pagemap(tag)
    words = {area.start: pagemap.entries[area.first : area.first + area.count] for area in pagemap.ranges}
    compared = 0
    for vma in process.vmas():
        if {"pf", "ht"} & set(vma.vm_flags):  # pagemap leaves soft-dirty of huge pages out, and device areas whole
            continue
        args = ScanArgs(vma.start, vma.end, category_anyof_mask=PRESENT | SWAPPED, return_mask=ALL)
        ours = pages_of(pagemap_scan(process, one.frames, args).regions)
        for at, word in enumerate(words[vma.start]):
            theirs = from_pagemap(word)
            expected = theirs if theirs & (PRESENT | SWAPPED) else Category(0)
            got = ours.get(vma.start + at * PAGE, Category(0)) & ~(Category.HUGE | Category.PFNZERO)
            assert got == expected, hex(vma.start + at * PAGE)
            compared += 1
    assert compared > 2000


def test_zero_pages_and_huge_pages() -> None:
    one = adopted(P, 4)
    a = next(p for p in one.processes if p.name == "A")
    args = ScanArgs(0x101000000, 0x101008000, category_mask=Category.PFNZERO, return_mask=Category.PFNZERO)
    zero = pages_of(pagemap_scan(a, one.frames, args).regions)
    assert sorted(zero) == [0x101000000 + i * PAGE for i in range(8) if i != 3]
    args = ScanArgs(0x140000000, 0x200000000, category_mask=HUGE | PRESENT, return_mask=HUGE)
    huge = [(r.start, r.end) for r in pagemap_scan(a, one.frames, args).regions]
    for start in (0x150000000, 0x15A000000, 0x160000000, 0x180000000, 0x190000000):
        assert any(low == start for low, _ in huge)


class Fake:
    """A process from a list of entries; PTE tables stand where `tables` says."""

    name, page_size = "fake", PAGE

    def __init__(self, areas: list[Vma], entries: list[PageEntry], tables: list[tuple[int, int]]) -> None:
        self.areas, self.by_va, self.tables = areas, {e.va: e for e in entries}, tables

    def vmas(self) -> list[Vma]:
        return self.areas

    def entries(self, start: int, end: int) -> Iterator[PageEntry]:
        found = [e for e in self.by_va.values() if e.va < end and e.va + e.nr_pages * PAGE > start]
        return iter(sorted(found, key=lambda e: e.va))

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        return iter([(low, high) for low, high in self.tables if low < end and start < high])

    # frames and writer

    def folio(self, pfn: int) -> None:
        return None

    def node(self, pfn: int) -> int:
        return 0

    def is_reserved(self, pfn: int) -> bool:
        return False

    def swap_count(self, swap_type: int, swap_offset: int) -> int:
        return 1

    def uffd_wp_entry(self, entry: PageEntry) -> None:
        self.by_va[entry.va] = replace(entry, uffd_wp=True)

    def uffd_wp_none(self, start: int, end: int) -> None:
        for va in range(start, end, PAGE):
            self.by_va[va] = PageEntry(va, Level.PTE, 1, State.MARKER, uffd_wp_marker=True)
        self.tables.append((start & -0x200000, (end + 0x1FFFFF) & -0x200000))

    def split_pmd(self, va: int) -> None:
        pmd = self.by_va.pop(va)
        for i in range(pmd.nr_pages):
            self.by_va[va + i * PAGE] = replace(pmd, va=va + i * PAGE, level=Level.PTE, nr_pages=1, pfn=pmd.pfn + i)
        self.tables.append((va, va + pmd.nr_pages * PAGE))


BASE = 0x40000000


def present(page: int, **facts: bool) -> PageEntry:
    return PageEntry(BASE + page * PAGE, Level.PTE, 1, State.PRESENT, pfn=page, **facts)


def pmd(va: int) -> PageEntry:
    return PageEntry(va, Level.PMD, 512, State.PRESENT, pfn=0x200)


def random_process(rng: random.Random) -> Fake:
    entries = []
    for page in range(24):
        kind = rng.randrange(4)
        if kind == 1:
            entries.append(present(page, uffd_wp=rng.random() < 0.4, soft_dirty=rng.random() < 0.5))
        elif kind == 2:
            swap = PageEntry(BASE + page * PAGE, Level.PTE, 1, State.SWAP, swap_offset=page)
            entries.append(replace(swap, uffd_wp=rng.random() < 0.4, soft_dirty=rng.random() < 0.5))
    flags = ("rd", "wr", "sd") if rng.random() < 0.3 else ("rd", "wr")
    areas = [Vma(BASE, BASE + 10 * PAGE, flags), Vma(BASE + 10 * PAGE, BASE + 24 * PAGE, ("rd",), wp_async=True)]
    return Fake(areas, entries, [(BASE, BASE + 0x200000)])


def naive(fake: Fake, args: ScanArgs) -> dict[int, Category]:
    """Page by page: which pages match, and what is told of them."""
    found = {}
    for vma in fake.areas:
        for va in range(vma.start, vma.end, PAGE):
            c = Category.WPALLOWED if vma.wp_async else Category(0)
            c |= Category.SOFT_DIRTY if "sd" in vma.vm_flags else Category(0)
            entry = fake.by_va.get(va)
            if entry is not None:
                c |= PRESENT if entry.present else SWAPPED
                c |= Category(0) if entry.uffd_wp else W
                c |= Category.SOFT_DIRTY if entry.soft_dirty else Category(0)
            flipped = c ^ args.category_inverted
            anyof = args.category_anyof_mask
            if flipped & args.category_mask == args.category_mask and (not anyof or flipped & anyof):
                found[va] = c & args.return_mask
    return found


def test_masks_limits_and_continuation() -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    for _ in range(400):
        fake = random_process(rng)
        masks = {f"category_{name}": Category(rng.getrandbits(9) & rng.getrandbits(9)) for name in ("inverted", "mask")}
        anyof, shown = Category(rng.getrandbits(9)), Category(rng.getrandbits(9))
        args = ScanArgs(BASE, BASE + 24 * PAGE, category_anyof_mask=anyof, return_mask=shown, **masks)
        if args.only_written:
            continue
        expected = naive(fake, args)
        whole = pagemap_scan(fake, fake, args)
        assert pages_of(whole.regions) == expected
        assert whole.walk_end == args.end
        assert all(a.end < b.start or a.categories != b.categories for a, b in pairwise(whole.regions))
        pieces: dict[int, Category] = {}
        at, rounds = args.start, 0
        while at < args.end:
            limited = replace(args, start=at, vec_len=rng.randint(1, 3), max_pages=rng.randint(1, 5))
            result = pagemap_scan(fake, fake, limited)
            assert len(result.regions) <= (limited.vec_len or 0)
            assert sum(r.end - r.start for r in result.regions) <= limited.max_pages * PAGE
            pieces |= pages_of(result.regions)
            assert result.walk_end > at
            at, rounds = result.walk_end, rounds + 1
        assert pieces == expected


def written(start: int, end: int, **options: int) -> ScanArgs:
    return ScanArgs(start, end, ScanFlags.WP_MATCHING, category_mask=W, return_mask=W | PRESENT, **options)


def test_matching_pages_are_protected_and_found_once() -> None:
    area = Vma(BASE, BASE + 8 * PAGE, ("rd", "wr"), wp_async=True)
    swap = PageEntry(BASE + 2 * PAGE, Level.PTE, 1, State.SWAP, swap_offset=7)
    fake = Fake([area], [present(0), present(1, uffd_wp=True), swap], [(BASE, BASE + 0x200000)])
    found = pagemap_scan(fake, fake, written(area.start, area.end), fake)
    assert pages_of(found.regions) == {BASE: W | PRESENT, BASE + 2 * PAGE: W}
    assert fake.by_va[BASE].uffd_wp
    assert fake.by_va[BASE + 2 * PAGE].uffd_wp
    assert pagemap_scan(fake, fake, written(area.start, area.end), fake).regions == []


def test_a_pmd_is_protected_whole_and_split_for_a_part() -> None:
    va = 0x40000000
    area = Vma(va, va + 0x400000, ("rd", "wr"), wp_async=True)
    fake = Fake([area], [pmd(va), pmd(va + 0x200000)], [])
    part = pagemap_scan(fake, fake, written(va, va + 0x203000), fake)
    assert [(r.start, r.end) for r in part.regions] == [(va, va + 0x203000)]
    assert fake.by_va[va].level is Level.PMD
    assert fake.by_va[va].uffd_wp
    protected = [page for page in range(512) if fake.by_va[va + 0x200000 + page * PAGE].uffd_wp]
    assert protected == [0, 1, 2]


def test_a_part_of_a_huge_page_of_hugetlb_ends_the_scan() -> None:
    va = 0x40000000
    area = Vma(va, va + 0x400000, ("rd", "wr", "ht"), page_size=0x200000, wp_async=True)
    fake = Fake([area], [pmd(va), pmd(va + 0x200000)], [])
    found = pagemap_scan(fake, fake, written(va, va + 0x400000, max_pages=600), fake)
    assert [(r.start, r.end) for r in found.regions] == [(va, va + 0x200000)]
    assert found.walk_end == va + 0x200000
    assert fake.by_va[va].uffd_wp
    assert not fake.by_va[va + 0x200000].uffd_wp


def test_holes_get_markers_only_where_they_match() -> None:
    area = Vma(BASE, BASE + 4 * PAGE, ("rd", "wr"), wp_async=True)
    fake = Fake([area], [], [])
    absent = ScanArgs(
        BASE, area.end, ScanFlags.WP_MATCHING, category_inverted=PRESENT, category_mask=PRESENT, return_mask=PRESENT
    )
    whole_area = dict.fromkeys(range(BASE, area.end, PAGE), Category(0))
    assert pages_of(pagemap_scan(fake, fake, absent, fake).regions) == whole_area
    assert all(fake.by_va[va].uffd_wp_marker for va in range(BASE, area.end, PAGE))
    empty = Fake([area], [], [])
    assert pagemap_scan(empty, empty, written(BASE, area.end), empty).regions == []
    assert empty.by_va == {}


def test_the_short_cut_counts_empty_entries_of_a_table_as_written() -> None:
    """mask and return mask both WRITTEN: fs/proc/task_mmu.c asks only whether uffd-wp is set."""
    area = Vma(BASE, BASE + 0x400000, ("rd", "wr"))
    fake = Fake([area], [present(1), present(2, uffd_wp=True)], [(BASE, BASE + 0x200000)])
    args = ScanArgs(BASE, area.end, category_mask=W, return_mask=W)
    regions = [(r.start, r.end) for r in pagemap_scan(fake, fake, args).regions]
    assert regions == [(BASE, BASE + 2 * PAGE), (BASE + 3 * PAGE, BASE + 0x200000)]


def test_refusals() -> None:
    plain = Vma(BASE, BASE + PAGE, ("rd",))
    fake = Fake([plain], [present(0)], [(BASE, BASE + 0x200000)])
    with pytest.raises(InputError, match="EPERM"):
        pagemap_scan(fake, fake, ScanArgs(BASE, BASE + PAGE, ScanFlags.CHECK_WPASYNC))
    with pytest.raises(InputError, match="EINVAL"):
        pagemap_scan(fake, fake, ScanArgs(BASE + 1, BASE + PAGE))
    with pytest.raises(InputError, match="EINVAL"):
        pagemap_scan(fake, fake, ScanArgs(BASE, BASE + PAGE, vec_len=0))
    with pytest.raises(InputError, match="categories there are not"):
        pagemap_scan(fake, fake, ScanArgs(BASE, BASE + PAGE, return_mask=Category(1 << 9)))
    with pytest.raises(InputError, match="writes the entries"):
        pagemap_scan(fake, fake, written(BASE, BASE + PAGE))
    assert pagemap_scan(fake, fake, written(BASE, BASE + PAGE), fake).regions == []  # not registered: passed over
