"""Operations on files, swap and migration: counters and /proc figures worked by hand from the kernel's rules."""

from __future__ import annotations

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import EntryKind, LinuxFlags
from ptwalk.rmap.models import MODELS
from ptwalk.rmap.space.system import ARCHES, System
from ptwalk.scenario.runner import Run, run_lines
from ptwalk.scenario.script import parse
from ptwalk.scenario.text import text

from .test_swap import smaps, story
from .test_tables import tell

PRIVATE = "file f file 16K\nfolio S f\nmmap A v f private\n"
SHMEM = "file f shmem 2M\nfolio S f\nmmap A v f\nmmap B w f\n"
THP = "mmap A v anon 2M\nfault A v\n"


def system(run: Run, *names: str) -> list[list[object]]:
    return [[run.steps[-1].snapshot.system[model][name] for name in names] for model in MODELS]


def mapped(run: Run, folio: str) -> dict[str, list[tuple[int, int, int]]]:
    return run.steps[-1].snapshot.folios[folio].mapped


# ---- private mappings of files, the zero page, fault-around


def test_a_private_mapping_of_a_file_is_read_around_and_copied_on_write() -> None:
    read = story(PRIVATE + "read A v 1")
    assert mapped(read, "S") == {"A": [(0, 0, 4)]}
    assert smaps(read, "A", "Rss", "Pss_File", "Anonymous") == [[16, 16, 0]] * 3
    copied = story(PRIVATE + "read A v 1\nwrite A v 2")
    assert copied.steps[-1].notes == ["copied: page 2 of S to S+2'"]
    assert mapped(copied, "S") == {"A": [(0, 0, 2), (0, 3, 1)]}
    assert smaps(copied, "A", "Rss", "Anonymous", "Private_Dirty") == [[16, 4, 4]] * 3
    # P counts three mapped pages of the file, N and T the whole folio while any page is mapped
    assert system(copied, "AnonPages", "Mapped") == [[4, 12], [4, 16], [4, 16]]


def test_a_write_to_what_was_never_read_needs_no_mapping_of_the_file() -> None:
    written = story(PRIVATE + "write A v 2 as G")
    assert mapped(written, "S") == {}
    assert mapped(written, "G") == {"A": [(0, 0, 1)]}
    assert written.steps[-1].snapshot.folios["S"].references == 4  # the page cache's


def test_fork_copies_a_private_file_mapping_only_once_it_has_private_pages() -> None:
    clean = story(PRIVATE + "read A v 1\nfork A B")
    assert list(mapped(clean, "S")) == ["A"]
    assert clean.steps[-1].snapshot.folios["S"].references == 8
    dirty = story(PRIVATE + "read A v 1\nwrite A v 2\nfork A B")
    assert list(mapped(dirty, "S")) == ["A", "B"]
    assert dirty.steps[-1].snapshot.folios["S"].references == 4 + 6
    assert smaps(dirty, "B", "Rss", "Anonymous") == [[16, 4]] * 3


def test_the_zero_page_counts_nowhere_until_it_is_written() -> None:
    read = story("mmap A v anon 16K\nread A v 1")
    assert read.steps[-1].notes == ["the zero page, which rmap does not count"]
    assert smaps(read, "A", "Rss", "Pss") == [[0, 0]] * 3
    assert read.steps[-1].snapshot.folios == {}
    written = story("mmap A v anon 16K\nread A v 1\nfork A B\nwrite A v 1")
    assert smaps(written, "A", "Rss", "Private_Dirty") == [[4, 4]] * 3
    assert smaps(written, "B", "Rss") == [[0]] * 3


@pytest.mark.parametrize(("page", "first", "end"), [(0, 0, 16), (17, 16, 32), (31, 16, 32), (40, 32, 42)])
def test_fault_around_maps_the_aligned_64k_window(page: int, first: int, end: int) -> None:
    """A file of 42 pages in folios of one page: the window around page 40 ends with the file."""
    folios = "\n".join(f"folio S{n} f {n}" for n in range(42))
    machine = tell("x86_64", f"file f file 168K\n{folios}\nmmap A v f\nread A v {page}")
    area = machine.processes["A"].areas["v"]
    pages = [area.page(leaf.va) for leaf in machine.processes["A"].leaves(area.start, area.end)]
    assert pages == list(range(first, end))


def test_fault_around_leaves_out_what_the_cache_does_not_hold_and_what_is_mapped() -> None:
    text = "file f file 64K\nfolio S f 0..3\nfolio T f 8..11\nmmap A v f\nfault A v 9\nread A v 0"
    assert mapped(story(text), "S") == {"A": [(0, 0, 4)]}
    assert mapped(story(text), "T") == {"A": [(0, 0, 4)]}
    assert story(text + "\nread A v 5").steps[-1].notes == ["SIGBUS: page 5 of f has no folio"]


def test_a_write_through_a_shared_mapping_makes_no_copy() -> None:
    written = story(SHMEM + "write A v 7")
    assert written.steps[-1].notes == ["S is written through a shared mapping"]
    assert mapped(written, "S") == {"A": [(0, 7, 1)]}
    assert smaps(written, "A", "Rss", "Private_Dirty") == [[4, 4]] * 3


# ---- rights


def test_a_read_only_area_refuses_writes_and_shows_it() -> None:
    text = THP + "mprotect A v 0..255 ro\n"
    assert story(text + "write A v 3").steps[-1].notes == ["SIGSEGV: the area is read-only"]
    assert story(text + "write A v 300").steps[-1].notes == []
    machine = tell("x86_64", text)
    shown = [(vma.prot, (vma.end - vma.start) >> 12) for vma in machine.processes["A"].vmas()]
    assert shown == [("r--p", 256), ("rw-p", 256)]
    with pytest.raises(InputError, match="have different rights: no VMA holds them all"):
        story(text + "collapse A v 0..511")
    with pytest.raises(InputError, match="the area is read-only there"):
        story("mmap A v anon 16K ro\nfault A v 0")


def test_fork_keeps_each_page_s_dirty_bit() -> None:
    """Pages 0 and 1 come back from swap clean, page 1 is then written: only it is dirty in the child too."""
    machine = tell(
        "x86_64", "mmap A v anon 16K\nfault A v order 0\nswapout A v 0..1\nread A v 0\nwrite A v 1\nfork A B"
    )
    area = machine.processes["B"].areas["v"]
    dirty = [LinuxFlags.DIRTY in leaf.flags for leaf in machine.processes["B"].leaves(area.start, area.end)]
    assert dirty == [False, True, True, True]


@pytest.mark.parametrize("arch", ARCHES)
def test_referenced_counts_accessed_entries(arch: str) -> None:
    """Fork leaves the child's entries old, clear_refs the parent's; a read and a write set the bits again."""
    text = f"arch {arch}\nmmap A v anon 1M\nfault A v 0..15 order 4\nfork A B\n"
    page = ARCHES[arch][1] >> 10
    assert smaps(story(text), "A", "Referenced") == [[16 * page]] * 3
    assert smaps(story(text), "B", "Referenced") == [[0]] * 3
    cleared = story(text + "clear-refs A\nread A v 3")
    block = 16 if arch == "arm64-4k" else 1  # of a contiguous block one entry's bit speaks for all
    assert smaps(cleared, "A", "Referenced", "Rss") == [[block * page, 16 * page]] * 3
    assert cleared.steps[-1].snapshot.folios["F"].references == 32


# ---- migration


def kinds(machine: System, process: str) -> list[EntryKind]:
    area = next(iter(machine.processes[process].areas.values()))
    return [other.entry.kind for other in machine.processes[process].nonpresent(area.start, area.end)]


@pytest.mark.parametrize("arch", ARCHES)
def test_migration_entries_stand_in_between(arch: str) -> None:
    begun = "mmap A v anon 1M\nfault A v 0..3 order 2\nmigrate F begin"
    machine = tell(arch, begun)
    assert kinds(machine, "A") == [EntryKind.MIGRATION_WRITE] * 4
    assert machine.folios["F"].refs == 1  # the isolation's
    assert all(model.mapcount(machine.folios["F"]) == 0 for model in machine.acct.models.values())
    forked = tell(arch, begun + "\nfork A B")
    assert kinds(forked, "A") == kinds(forked, "B") == [EntryKind.MIGRATION_READ] * 4
    ended = tell(arch, begun + "\nfork A B\nzap B v 0\nmigrate F end")
    new = ended.folios["F'"]
    assert (new.refs, new.exclusive.any(0, 4)) == (7, False)
    alone = tell(arch, begun + "\nmprotect A v ro\nmigrate F end")
    assert alone.folios["F'"].exclusive.minimum(0, 4) == 1
    assert not any(leaf.write for leaf in alone.processes["A"].leaves(0, 1 << 40))


def test_a_pmd_migrates_as_a_pmd_and_is_split_as_an_entry() -> None:
    machine = tell("x86_64", THP + "migrate F begin\nzap A v 0..9\nmigrate F end")
    leaves = machine.processes["A"].leaves(0, 1 << 40)
    assert [(leaf.level, leaf.page) for leaf in leaves] == [(0, page) for page in range(10, 512)]
    whole = story(THP + "fork A B\nmigrate F begin\nmigrate F end")
    assert mapped(whole, "F'") == {"A": [(1, 0, 512)], "B": [(1, 0, 512)]}
    assert whole.steps[-1].notes == ["F moved to F'"]
    waits = story(THP + "migrate F begin\nread A v 3")
    assert waits.steps[-1].notes == ["the fault waits until the page has migrated"]
    assert smaps(waits, "A", "Rss") == [[2048]] * 3  # smaps counts the page that a migration entry names


def test_a_file_s_folio_migrates_with_its_place_in_the_page_cache() -> None:
    moved = story(SHMEM + "fault A v 0..511 pmd\nfault B w 0..15\nmigrate S\nread B w 16")
    assert mapped(moved, "S'") == {"A": [(1, 0, 512)], "B": [(0, 0, 32)]}
    assert moved.steps[-1].snapshot.folios["S'"].references == 512 + 1 + 32


def test_nobody_maps_it_any_more_when_migration_ends() -> None:
    gone = story(THP + "migrate F begin\nexit A\nmigrate F end")
    assert gone.steps[-1].notes == ["F is mapped by nobody any more and freed"]
    assert gone.steps[-1].snapshot.folios == {}


# ---- splits and collapse


def test_a_folio_is_split_to_an_order() -> None:
    split = story(THP + "split-folio F order 4")
    names = [f"F+{16 * n}" for n in range(32)]
    assert sorted(split.steps[-1].snapshot.folios) == sorted(names)
    assert mapped(split, "F+16") == {"A": [(0, 0, 16)]}
    assert system(split, "AnonPages", "AnonHugePages", "nr_anon") == [[2048, 0, 32]] * 3
    file = story(SHMEM + "fault A v 0..511 pmd\nsplit-folio S order 3\nread A v 9")
    assert mapped(file, "S+8") == {"A": [(0, 0, 8)]}
    assert mapped(file, "S+16") == {}
    stays = story(THP + "pin A v 3\nsplit-folio F")
    assert stays.steps[-1].notes == ["-EAGAIN: F may be pinned and is not split"]


def test_collapse_reads_swapped_pages_back() -> None:
    text = "mmap A v anon 2M\nfault A v 0..511 order 0\nswapout A v 3..4\nread A v 3 as G\ncollapse A v 0..511 as H"
    done = story(text)
    assert done.steps[-1].notes == ["page 0 of H+4, read from swap, exclusive"]
    assert mapped(done, "H") == {"A": [(1, 0, 512)]}
    assert smaps(done, "A", "Rss", "AnonHugePages", "Swap") == [[2048, 2048, 0]] * 3


def test_collapse_of_a_file_takes_it_from_everybody() -> None:
    text = (
        "file f shmem 2M\nfolio S f 0..255\nfolio T f 256..383\nmmap A v f\nmmap B w f\nfault A v 0..300\nfault B w 7\n"
    )
    done = story(text + "collapse A v 0..511 as G")
    assert mapped(done, "G") == {}
    assert sorted(done.steps[-1].snapshot.folios) == ["G"]
    assert done.steps[-1].snapshot.folios["G"].references == 512
    again = story(text + "collapse A v 0..511 as G\nfault B w pmd")
    assert mapped(again, "G") == {"B": [(1, 0, 512)]}
    assert system(again, "Mapped", "ShmemPmdMapped") == [[2048, 2048]] * 3


# ---- reclaim


def test_reclaim_takes_a_folio_from_every_process() -> None:
    anon = story(THP + "fork A B\nsplit A v\nreclaim F")
    assert anon.steps[-1].notes == ["F is written to swap and freed"]
    assert (
        smaps(anon, "A", "Rss", "Swap", "SwapPss")
        == smaps(anon, "B", "Rss", "Swap", "SwapPss")
        == [[0, 2048, 1024]] * 3
    )
    shmem = story(SHMEM + "fault A v 0..511 pmd\nfault B w 0..7\nreclaim S")
    assert shmem.steps[-1].notes == ["S is written to swap and freed"]
    assert smaps(shmem, "A", "Rss", "Swap", "SwapPss") == [[0, 2048, 0]] * 3  # shmem_swap_usage, which has no share
    file = story("file f file 64K\nfolio S f\nmmap A v f\nread A v 0\nreclaim S")
    assert file.steps[-1].notes == ["S leaves the page cache and is freed"]
    assert smaps(file, "A", "Rss", "Swap") == [[0, 0]] * 3
    assert story(THP + "pin A v 0\nreclaim F").steps[-1].notes == ["F may be pinned and stays"]


def test_a_shmem_page_comes_back_from_swap() -> None:
    run = story(SHMEM + "fault A v 0..511 pmd\nreclaim S\nread A v 7 as G\nwrite B w 7")
    assert mapped(run, "G") == {"A": [(0, 0, 1)], "B": [(0, 0, 1)]}
    assert smaps(run, "A", "Rss", "Pss", "Swap") == [[4, 2, 2044]] * 3
    assert run.steps[-1].snapshot.folios["G"].references == 3


def test_pageout_leaves_shared_folios_alone_and_splits_what_it_covers_in_part() -> None:
    shared = story(THP + "fork A B\npageout A v")
    assert shared.steps[-1].notes == ["F may be mapped elsewhere and is left alone"]
    part = story(THP + "pageout A v 0..15")
    assert part.steps[-1].notes[0] == "F+0 is written to swap and freed"
    assert smaps(part, "A", "Rss", "Swap") == [[1984, 64]] * 3
    whole = story(THP + "pageout A v")
    assert whole.steps[-1].notes == ["F is written to swap and freed"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (THP + "migrate F end", "F is not under migration"),
        (THP + "migrate F begin\nmigrate F", "F is under migration"),
        (THP + "split-folio F order 9", "a folio of order 9 is not split to this order"),
        (THP + "split-folio F order 1", "a folio of order 9 is not split to this order"),
        ("mmap A v anon 16K\nread A v 0..1", "one page is wanted"),
        (SHMEM + "fault A v 0..15\nswapout A v", "only anonymous pages are swapped out this way"),
        (PRIVATE + "collapse A v 0..3", "are not one aligned PMD of 512 anonymous or shared pages"),
    ],
)
def test_what_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        story(text)


def test_show_prints_the_file_once_for_models_that_agree() -> None:
    run = story(THP + "fork A B\nzap B v 0..255\nshow smaps_rollup A\nshow numa_maps B\nshow meminfo")
    rollup, numa, meminfo = (step.view for step in run.steps[-3:])
    assert rollup is not None
    assert numa is not None
    assert meminfo is not None
    pss = {
        model: next(row for row in said.splitlines() if row.startswith("Pss:")) for model, said in rollup.models.items()
    }
    assert pss["precise"] == "Pss:                1536 kB"  # half of the pages are A's alone
    assert pss["no-page-mapcount"] == pss["total-mapped-pages"] == "Pss:                1024 kB"
    assert set(numa.models.values()) == {
        "100000000 default anon=256 dirty=256 mapmax=2 active=0 N0=256 kernelpagesize_kB=4\n"
    }
    assert meminfo.models["precise"].splitlines()[0] == "AnonPages:          2048 kB"
    shown = text(run, MODELS).splitlines()
    assert shown.count("    /proc/meminfo (precise, no-page-mapcount, total-mapped-pages)") == 1
    assert "  * /proc/A/smaps_rollup (no-page-mapcount, total-mapped-pages)" in shown
    with pytest.raises(InputError, match="the file is one of smaps, smaps_rollup, numa_maps, meminfo"):
        story(THP + "show status A")


def test_recount_on_demand_says_what_it_looked_at() -> None:
    last = story(THP + "split A v\nfork A B\nzap B v 0\nrecount").steps[-1]
    assert last.notes == ["recounted from the page tables: 1023 entries, 1 folios under 3 models, every figure agrees"]
    wrong = run_lines(parse("literal\nmmap A v anon 2M\nfault A v\nrecount"), literal=True).steps[-1]
    assert wrong.notes[0].startswith("recounted from the page tables: 1 entries")
