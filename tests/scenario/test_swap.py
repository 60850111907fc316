"""Swapping out and in: entries, slots, exclusive bits and smaps' figures, each worked by hand."""

from __future__ import annotations

import pytest

from ptwalk.arch.errors import PtwalkError
from ptwalk.rmap.models import MODELS
from ptwalk.rmap.space.system import ARCHES
from ptwalk.scenario import snapshot
from ptwalk.scenario.runner import Run, run_lines
from ptwalk.scenario.script import RecountError, parse

from .test_tables import tell

SMALL = "mmap A v anon 16K\nfault A v order 0\n"
THP = "mmap A v anon 2M\nfault A v 0..511 pmd\n"


def story(text: str) -> Run:
    return run_lines(parse(text))


def smaps(run: Run, process: str, *names: str) -> list[list[object]]:
    """The figures under each model, which must agree where nothing large is mapped."""
    columns = run.steps[-1].snapshot.processes[process]
    return [[columns[model][name] for name in names] for model in MODELS]


def test_a_page_goes_and_comes_back_exclusive() -> None:
    out = story(SMALL + "swapout A v 1..2")
    assert smaps(out, "A", "Rss", "Swap", "SwapPss") == [[8, 8, 8]] * 3
    assert out.steps[-1].notes == ["F2 is written to swap and freed", "F3 is written to swap and freed"]
    back = story(SMALL + "swapout A v 1..2\nswapin A v 1 as G")
    assert back.steps[-1].notes == ["page 0 of G, read from swap, exclusive"]
    shown = back.steps[-1].snapshot.folios["G"]
    assert (shown.references, shown.exclusive_pages, shown.mapped["A"]) == (1, 1, [(0, 0, 1)])
    assert smaps(back, "A", "Rss", "Swap", "SwapPss") == [[12, 4, 4]] * 3


def test_fork_counts_the_slot_and_shares_the_entry() -> None:
    text = SMALL + "swapout A v 0\nfork A B"
    assert smaps(story(text), "A", "Swap", "SwapPss") == [[4, 2]] * 3
    machine = tell("x86_64", text)
    area = machine.processes["A"].areas["v"]
    found = [machine.processes[name].nonpresent(area.start, area.start + 4096)[0] for name in "AB"]
    assert found[0] == found[1]
    assert not found[0].entry.flags
    assert machine.swap.counts == {found[0].entry.offset: 2}
    first = story(text + "\nswapin A v 0 as G")  # B's entry keeps the folio in the swap cache: 1 mapping + 1
    assert first.steps[-1].notes == ["page 0 of G, read from swap, shared"]
    assert first.steps[-1].snapshot.folios["G"].references == 2
    both = story(text + "\nswapin A v 0 as G\nswapin B v 0")
    assert both.steps[-1].notes == ["page 0 of G, found in the swap cache, shared"]
    shown = both.steps[-1].snapshot.folios["G"]
    assert (shown.references, shown.exclusive_pages, shown.models["precise"]["mapcount"]) == (2, 0, 2)
    alone = story(text + "\nexit A\nswapin B v 0")
    assert alone.steps[-1].notes[0].endswith("read from swap, exclusive")


def test_part_of_a_large_folio() -> None:
    """Half of a THP: 256 PTEs stay, the folio is in the cache (512 + 256 references), and partially mapped for N=P."""
    out = story(THP + "swapout A v 0..255")
    assert out.steps[-1].notes == ["F is still in use and stays in the swap cache"]
    shown = out.steps[-1].snapshot.folios["F"]
    assert (shown.references, shown.exclusive_pages, shown.mapped["A"]) == (768, 256, [(0, 256, 256)])
    assert [shown.models[model]["mapcount"] for model in MODELS] == [256] * 3
    assert smaps(out, "A", "Swap", "SwapPss") == [[1024, 1024]] * 3
    back = story(THP + "swapout A v 0..1\nswapin A v 1\nswapin A v 0")
    assert back.steps[-1].notes == ["page 0 of F, found in the swap cache, exclusive"]
    shown = back.steps[-1].snapshot.folios["F"]
    assert (shown.references, shown.exclusive_pages, shown.mapped["A"]) == (512, 512, [(0, 0, 512)])


def test_shared_pages_stay_in_the_cache_for_the_other_process() -> None:
    text = THP + "fork A B\nswapout A v"
    out = story(text)
    shown = out.steps[-1].snapshot.folios["F"]
    assert (shown.references, list(shown.mapped)) == (513, ["B"])
    assert smaps(out, "A", "Rss", "Swap") == [[0, 2048]] * 3
    # one reference of B's PMD is left, but A's entries need the swap cache: B may not reuse the page
    copied = story(text + "\ncow B v 7")
    assert copied.steps[-1].notes == ["copied: page 7 of F to F+7'"]
    assert story(text + "\nexit A\ncow B v 7").steps[-1].notes == ["reused: F stays, writable"]


def test_pinned_pages_stay() -> None:
    out = story(THP + "pin A v 3\nswapout A v 0..7")
    assert out.steps[-1].notes == ["8 pages of F may be pinned and stay mapped"]
    shown = out.steps[-1].snapshot.folios["F"]
    assert (shown.exclusive_pages, shown.mapped["A"]) == (512, [(0, 0, 512)])
    assert smaps(out, "A", "Rss", "Swap") == [[2048, 0]] * 3


def test_a_folio_in_the_swap_cache_migrates() -> None:
    moved = story(THP + "swapout A v 0..1\nmigrate F\nswapin A v 1\nswapin A v 0")
    shown = moved.steps[-1].snapshot.folios["F'"]
    assert (shown.references, shown.exclusive_pages, shown.mapped["A"]) == (512, 512, [(0, 0, 512)])


@pytest.mark.parametrize("arch", ARCHES)
def test_entries_move_and_are_freed(arch: str) -> None:
    text = "mmap A v anon 2M\nfault A v 0..15 order 2\nswapout A v 2..9\nfork A B\nmremap B v at 0x3_0000_0000"
    machine = tell(arch, text)
    area = machine.processes["B"].areas["v"]
    end = area.start + area.nr_pages * machine.page_size
    entries = machine.processes["B"].nonpresent(area.start, end)
    assert [(entry.va - area.start) // machine.page_size for entry in entries] == list(range(2, 10))
    assert set(machine.swap.counts.values()) == {2}
    assert set(tell(arch, text + "\nzap A v 0..3\nexit B").swap.counts.values()) == {1}
    gone = tell(arch, text + "\nmigrate F\nexit A\nexit B")
    assert (gone.swap.counts, gone.swap.frames, gone.folios, gone.processes) == ({}, {}, {}, {})


def test_a_wrong_count_is_found() -> None:
    machine = tell("x86_64", SMALL + "swapout A v 0")
    machine.swap.duplicate(1)
    with pytest.raises(RecountError, match="swap slot 1 is counted 2 times, 1 entries refer to it"):
        snapshot.take(machine)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("swapin A v 0", "page 0 of v is not swapped out by A"),
        ("swapout A v 0\nswapout A v 0", "A maps nothing there"),
        ("swapout A v 0\nfault A v 0", "page 0 of v holds an entry already: swap"),
        ("swapout A v 0\nfork A B\nswapin A v 0 as G\nswapcache G off", "entries refer to its swap slots"),
        ("swapin A v 0..1", "one page is wanted"),
    ],
)
def test_what_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(PtwalkError, match=problem):
        story(SMALL + text)
