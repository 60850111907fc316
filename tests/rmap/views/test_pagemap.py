"""pagemap words in both forms, and kpageflags and kpagecount, against captured kernels."""

from __future__ import annotations

import pytest
from verified_captures import NEW_ARM, OLD_SWAP, OLD_X86, N, P, adopted

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux_proc import KPF, PAGEMAP
from ptwalk.rmap.views import kpage
from ptwalk.rmap.views.pagemap import PM_MMAP_EXCLUSIVE, PM_PFRAME, PM_SWAP, PagemapView, decode
from ptwalk.rmap.views.rules import AS_MEANT, proc_rules


def view(name: str, checkpoint: int, tag: str, **options: bool) -> PagemapView:
    one = adopted(name, checkpoint)
    process = next(p for p in one.processes if p.name == tag)
    model = one.model("no-page-mapcount" if name == N else "precise")
    return PagemapView(process, one.frames, model, one.kernel.rules, **options)


@pytest.mark.parametrize(("name", "tag"), [(P, "A"), (N, "B"), (OLD_X86, "C"), (NEW_ARM, "A")])
def test_read_gives_the_captured_bytes(name: str, tag: str) -> None:
    one = adopted(name, 4)
    pagemap = one.checkpoint.pagemap(tag)
    reader = view(name, 4, tag)
    for area in pagemap.ranges:
        theirs = bytes(pagemap.entries[area.first : area.first + area.count].cast("B"))
        assert reader.read(area.start // 4096 * 8, area.count * 8) == theirs


def test_holes_between_areas_read_zero() -> None:
    words = view(P, 4, "A").words(0x100000000 - 4096, 0x100000000 + 4096)
    assert words[0] == 0
    assert words[1] & PAGEMAP.mask("PRESENT")


@pytest.mark.parametrize(("offset", "size"), [(4, 8), (8, 12), (-8, 8)])
def test_reads_are_multiples_of_eight(offset: int, size: int) -> None:
    with pytest.raises(InputError, match="EINVAL"):
        view(P, 4, "A").read(offset, size)


def test_without_cap_sys_admin_frames_and_swap_slots_read_zero() -> None:
    shown, hidden = view(OLD_X86, 4, "A"), view(OLD_X86, 4, "A", show_pfn=False)
    for vma in shown.process.vmas():
        full = shown.vma_words(vma, vma.start, vma.end)
        assert [word & ~PM_PFRAME for word in full] == list(hidden.vma_words(vma, vma.start, vma.end))


def test_exclusive_inside_a_pmd() -> None:
    """B maps by PMD a folio whose first page A has left: in 7.3 that page answers for all; as meant, each does."""
    reader = view(P, 4, "B")
    one = adopted(P, 4)
    vma = next(v for v in reader.process.vmas() if v.start == 0x140000000)
    counts = [one.kpagecount.get(word & PM_PFRAME) for word in reader.vma_words(vma, vma.start, vma.end)]
    assert counts[0] == 1
    assert 2 in counts
    first = [bool(w & PM_MMAP_EXCLUSIVE) for w in reader.vma_words(vma, vma.start, vma.end)]
    assert first == [True] * 512
    meant = PagemapView(reader.process, reader.frames, reader.model, AS_MEANT)
    each = [bool(w & PM_MMAP_EXCLUSIVE) for w in meant.vma_words(vma, vma.start, vma.end)]
    assert each == [count == 1 for count in counts]


@pytest.mark.parametrize(
    ("release", "each"), [("6.1.0", False), ("6.11.0", True), ("6.14.9", True), ("6.15.0", False), ("7.3.4", False)]
)
def test_kernels_that_ask_each_page(release: str, each: bool) -> None:
    assert proc_rules(release).exclusive_each_page is each


def test_decode_tells_swap_from_present() -> None:
    words = adopted(OLD_SWAP, 4).checkpoint.pagemap("C").entries
    swapped = [decode(word) for word in words if word & PM_SWAP]
    assert "SWAP_OFFSET=0x200|SOFT_DIRTY|SWAP" in swapped
    assert all("PRESENT" not in text and "PFRAME" not in text for text in swapped)


@pytest.mark.parametrize("name", [P, N, NEW_ARM])
def test_kpageflags_of_every_folio(name: str) -> None:
    one = adopted(name, 4)
    model = one.model("no-page-mapcount" if name == N else "precise")
    derived = ("MMAP", "ANON", "KSM", "COMPOUND_HEAD", "COMPOUND_TAIL", "HUGE", "THP")
    known = KPF.mask(*kpage.FOLIO_FLAGS.values(), *derived)
    per_page = KPF.mask("PRIVATE", "HWPOISON")
    compared = 0
    for folio in one.frames.folios.values():
        ours = kpage.kpageflags_words(one.frames, model, folio.pfn, folio.nr_pages)
        for page, word in enumerate(ours):
            theirs = one.kpageflags.get(folio.pfn + page)
            assert theirs is not None
            assert (word ^ theirs) & known & ~per_page == 0, (folio, page, KPF.flags(word), KPF.flags(theirs))
            compared += 1
    assert compared > 7000


def test_frames_without_a_folio() -> None:
    one = adopted(P, 4)
    zero = next(i for i, word in enumerate(one.kpageflags.values) if word & KPF.mask("ZERO_PAGE"))
    model = one.model("precise")
    assert list(kpage.kpageflags_words(one.frames, model, zero, 1)) == [KPF.mask("NOPAGE")]
    assert list(kpage.kpagecount_words(one.frames, model, zero, 1)) == [0]


def test_kpagecount_words() -> None:
    one = adopted(P, 4)
    folio = next(f for f in one.frames.folios.values() if f.order == 9 and f.is_anon and not f.kind.is_hugetlb)
    ours = kpage.kpagecount_words(one.frames, one.model("precise"), folio.pfn, 512)
    assert list(ours) == [one.kpagecount.get(folio.pfn + page) for page in range(512)]
