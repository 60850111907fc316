"""hugetlb: one mapping a huge page whatever its entries, no node statistics, reuse while mapped once; by hand."""

from __future__ import annotations

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import LinuxFlags
from ptwalk.rmap.models import MODELS
from ptwalk.rmap.space.process import Process
from ptwalk.rmap.space.system import ARCHES
from ptwalk.scenario.runner import Run, run_lines
from ptwalk.scenario.script import parse

from .test_tables import tell

SIZES = [  # architecture, huge page, base pages of it, entries of it, depth of their table above the last
    ("x86_64", "2M", 512, 1, 1),
    ("x86_64", "1G", 1 << 18, 1, 2),
    ("x86_64-5level", "2M", 512, 1, 1),
    ("arm64-4k", "64K", 16, 16, 0),
    ("arm64-4k", "2M", 512, 1, 1),
    ("arm64-4k", "32M", 8192, 16, 1),
    ("arm64-4k", "1G", 1 << 18, 1, 2),
    ("arm64-16k", "2M", 128, 128, 0),
    ("arm64-16k", "32M", 2048, 1, 1),
    ("arm64-16k", "1G", 1 << 16, 32, 1),
    ("arm64-64k", "2M", 32, 32, 0),
    ("arm64-64k", "512M", 8192, 1, 1),
    ("arm64-64k", "16G", 1 << 18, 32, 1),
]
TWO = "mmap A v hugetlb 4M\nfault A v\n"


def story(text: str) -> Run:
    return run_lines(parse(text))


def entries(process: Process) -> list[tuple[int, bool]]:
    """(depth above the last table, contiguous bit) of every entry."""
    linux, tree = process.linux, process.tables.tree
    found = process.tables.raw(0, tree.va_end)
    return [
        (linux.paging.depth(e.level.number), LinuxFlags.CONTIG in linux.decode(e.level.number, e.raw).flags)
        for e in found
    ]


@pytest.mark.parametrize(("arch", "size", "pages", "count", "depth"), SIZES)
def test_a_huge_page_is_one_mapping(arch: str, size: str, pages: int, count: int, depth: int) -> None:
    machine = tell(arch, f"mmap A v hugetlb {size} page {size}\nfault A v as H")
    folio, process = machine.folios["H"], machine.processes["A"]
    assert entries(process) == [(depth, count > 1)] * count
    assert (folio.nr_pages, folio.refs, folio.exclusive[0]) == (pages, 1, 1)
    for model in machine.acct.models.values():
        assert model.mapcount(folio) == 1
        assert model.stats.nr == [0] * 5
    machine = tell(arch, f"mmap A v hugetlb {size} page {size}\nfault A v as H\nfork A B\nwrite B v 0\nexit A")
    assert sorted(machine.folios) == ["H'"]
    assert entries(machine.processes["B"]) == [(depth, count > 1)] * count
    machine = tell(
        arch, f"mmap A v hugetlb {size} page {size}\nfault A v as H\nmprotect A v ro\nfork A B\nmunmap B v\nexit A"
    )
    assert machine.folios == {}


def test_smaps_tells_hugetlb_apart() -> None:
    run = story(TWO + "fork A B\nwrite B v 0")
    for model in MODELS:
        shown = run.steps[-1].snapshot.processes["B"][model]
        assert [shown[name] for name in ("Rss", "Pss", "Private_Hugetlb", "Shared_Hugetlb")] == [0, 0, 2048, 2048]
        assert run.steps[-1].snapshot.system[model]["AnonPages"] == 0
    assert run.steps[-1].notes == ["copied: F to F'"]
    assert run.steps[-1].snapshot.folios["F2"].models["precise"]["mapcount"] == 2


def test_reuse_needs_one_mapping_only() -> None:
    assert story(TWO + "fork A B\nexit B\nwrite A v 0").steps[-1].notes == ["reused: F stays, writable"]
    text = "file h hugetlb 4M\nfolio S h 0..511\nfolio T h 512..1023\nmmap A v h private\nread A v 0\n"
    private = story(text + "write A v 0")
    assert private.steps[-1].notes == ["copied: S to S'"]  # a page of the page cache is never reused
    assert private.steps[-1].snapshot.folios["S"].references == 1
    shared = story("file h hugetlb 2M\nfolio S h\nmmap A v h\nmmap B w h\nread A v 0\nwrite B w 3")
    last = shared.steps[-1].snapshot
    assert (last.folios["S"].kind, last.folios["S"].references) == ("hugetlb_file", 3)
    assert [last.folios["S"].models[model]["mapcount"] for model in MODELS] == [2, 2, 2]
    assert [last.processes["A"][model]["Shared_Hugetlb"] for model in MODELS] == [2048] * 3


def test_fork_copies_what_may_be_pinned_as_a_whole() -> None:
    run = story(TWO + "pin A v 3\nfork A B")
    assert run.steps[-1].notes == ["F may be pinned: copied for B"]
    last = run.steps[-1].snapshot
    assert (last.folios["F"].mapped, last.folios["F'"].mapped) == ({"A": [(1, 0, 512)]}, {"B": [(1, 0, 512)]})
    assert last.folios["F2"].references == 2


def test_fork_leaves_shared_mappings_to_faults() -> None:
    text = "file h hugetlb 2M\nfolio S h\nmmap A v h\nread A v 0\nfork A B"
    assert list(story(text).steps[-1].snapshot.folios["S"].mapped) == ["A"]
    assert list(story(text + " files").steps[-1].snapshot.folios["S"].mapped) == ["A", "B"]


def test_mremap_keeps_the_entries_and_the_counts() -> None:
    machine = tell("arm64-4k", "mmap A v hugetlb 128K page 64K\nfault A v\nfork A B\nmremap B v at 0x300010000")
    assert entries(machine.processes["B"]) == [(0, True)] * 32
    assert machine.folios["F"].refs == 2


@pytest.mark.parametrize("arch", ["x86_64", "arm64-4k"])
def test_referenced_and_rights_of_a_contiguous_page_move_together(arch: str) -> None:
    size = "64K" if arch == "arm64-4k" else "2M"
    machine = tell(arch, f"mmap A v hugetlb {size} page {size}\nfault A v\nfork A B\nclear-refs A\nmprotect B v ro")
    for name in "AB":
        process = machine.processes[name]
        found = list(process.tables.raw(0, process.tables.tree.va_end))
        flags = {process.linux.decode(e.level.number, e.raw).flags for e in found}
        assert len(flags) == 1
        assert not flags.pop() & (LinuxFlags.WRITE | LinuxFlags.YOUNG)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mmap A v hugetlb 3M", "not whole huge pages of 512 pages"),
        ("mmap A v hugetlb 4M page 64K", "hugetlb pages of x86_64 have 2M, 1G"),
        ("mmap A v hugetlb 4M at 0x100001000", "not whole huge pages of 512 pages"),
        (TWO + "munmap A v 0..7", "pages 0..7 are not whole huge pages of 512 pages"),
        (TWO + "swapout A v", "swapout: not done to hugetlb pages"),
        (TWO + "collapse A v 0..511", "collapse: not done to hugetlb pages"),
        (TWO + "split A v", "split: not done to hugetlb pages"),
        (TWO + "migrate F", "migrate: not done to hugetlb pages"),
        (TWO + "reclaim F", "reclaim: not done to hugetlb pages"),
        (TWO + "mmap B w anon 4K\nfault B w\nmerge B w 0 A v 0", "only anonymous pages outside the swap cache"),
        (TWO + "mremap A v at 0x300001000", "not whole huge pages of 512 pages"),
        ("file h hugetlb 4M\nfolio S h", "a folio of h has 512 pages"),
        (TWO + "fault A v 0..511", "page 0 of v is mapped already"),
    ],
)
def test_what_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        story(text)


def test_every_architecture_is_tried() -> None:
    assert {arch for arch, *_ in SIZES} == set(ARCHES)
