"""KSM's merge: who maps the page, its counters and smaps' figures, worked by hand."""

from __future__ import annotations

import pytest

from ptwalk.arch.errors import PtwalkError
from ptwalk.rmap.models import MODELS
from ptwalk.scenario.runner import run_lines
from ptwalk.scenario.script import parse

TWO = "mmap A v anon 16K\nfault A v 0..3 order 0\nmmap B w anon 16K\nfault B w 0 order 0 as G\n"
MERGED = TWO + "merge A v 1 B w 0\n"


def test_two_pages_become_one() -> None:
    last = run_lines(parse(MERGED)).steps[-1]
    assert last.notes == ["B maps F2 in place of G"]
    page = last.snapshot.folios["F2"]
    assert (page.kind, page.references, page.exclusive_pages) == ("ksm", 2, 0)
    assert page.mapped == {"A": [(0, 0, 1)], "B": [(0, 0, 1)]}
    assert "G" not in last.snapshot.folios
    for model in MODELS:
        shown = last.snapshot.processes
        assert [shown["A"][model][name] for name in ("Rss", "Pss", "KSM")] == [16, 14, 4]
        assert [shown["B"][model][name] for name in ("Rss", "Pss", "KSM")] == [4, 2, 4]
        assert last.snapshot.system[model]["AnonPages"] == 16  # four pages, the shared one once


def test_a_write_copies_and_exit_frees() -> None:
    story = run_lines(parse(MERGED + "cow B w 0\nexit B\ncow A v 1\nexit A"))
    assert story.steps[-4].notes == ["copied: page 0 of F2 to F2+0'"]
    assert story.steps[-2].notes == ["copied: page 0 of F2 to F2+0'"]
    assert story.steps[-1].snapshot.folios == {}


def test_a_large_folio_is_split_first_and_a_pinned_page_stays() -> None:
    text = "mmap A v anon 64K\nfault A v 0..15\nmmap B w anon 64K\nfault B w 0 order 0 as G\n"
    page = run_lines(parse(text + "merge A v 3 B w 0")).steps[-1].snapshot
    assert page.folios.keys() == set()
    assert page.others == 16
    pinned = run_lines(parse(text + "pin A v 3\nmerge A v 3 B w 0")).steps[-1]
    assert pinned.notes == ["-EAGAIN: F may be pinned and is not split"]
    small = run_lines(parse(TWO + "pin B w 0\nmerge A v 1 B w 0")).steps[-1]
    assert small.notes == ["-EAGAIN: G may be pinned and is not merged"]
    assert small.snapshot.folios["G"].exclusive_pages == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (MERGED + "merge A v 0 B w 0", "the second page is merged already"),
        (TWO + "merge A v 0 A v 0", "or is the first one"),
        (TWO + "swapcache G on\nmerge A v 0 B w 0", "outside the swap cache"),
        (MERGED + "swapout B w 0", "pages of KSM are not swapped out"),
    ],
)
def test_what_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(PtwalkError, match=problem):
        run_lines(parse(text))
