"""What pins and contpte blocks forbid: told in a sentence, and nothing is lost."""

from __future__ import annotations

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.scenario.runner import Run, run_lines
from ptwalk.scenario.script import parse


def _run(text: str) -> Run:
    return run_lines(parse(text))


def test_collapse_leaves_a_pinned_page_where_it_is() -> None:
    story = _run("mmap A v anon 2M\nfault A v 0..511 order 0\npin A v 7\ncollapse A v 0..511")
    assert any(note.startswith("-EAGAIN") for note in story.steps[-1].notes)


def test_fork_splits_what_may_be_pinned_and_copies_it() -> None:
    """An order-10 folio in two PMDs: after fork the child has 1024 pages of its own, nothing is shared."""
    story = _run("mmap A v anon 4M\nfault A v pmd order 10\npin A v 7\nfork A B")
    last = story.steps[-1]
    assert [note for note in last.notes if "PMD is split" in note] == ["F may be pinned: A's PMD is split"] * 2
    assert last.snapshot.folios["F"].mapped == {"A": [(0, 0, 1024)]}
    assert last.snapshot.others == 1024


def test_fork_says_that_a_pinned_pud_is_too_large_to_copy() -> None:
    with pytest.raises(InputError, match="F may be pinned, and more than 65536 pages are not copied one by one"):
        _run("mmap A v anon 1G\nfault A v pud order 18\npin A v 7\nfork A B")


BLOCK = """arch arm64-4k
mmap A v anon 64K
fault A v 0..15 order 4
fork A B
exit B
write A v 3
mprotect A v ro
mremap A v at 0x200000000
mprotect A v rw"""


def test_a_block_is_unfolded_where_one_entry_alone_becomes_writable() -> None:
    """Only page 3 is exclusive: its entry turns writable, so no entry of its block may stay contiguous."""
    from ptwalk.rmap.space.system import Settings, System
    from ptwalk.scenario.script import Words
    from ptwalk.scenario.steps import STEPS

    machine = System(Settings(arch="arm64-4k"))
    for line in parse(BLOCK)[1:]:
        words = Words(line, "test")
        STEPS[words.verb](machine, words)
    process = machine.processes["A"]
    start = 0x2_0000_0000
    leaves = process.leaves(start, start + 0x10000)
    assert [leaf.write for leaf in leaves].count(True) == 1
    assert process.folded(start, start + 0x10000) == 0
