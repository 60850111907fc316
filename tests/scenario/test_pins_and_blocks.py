"""What pins and contpte blocks forbid: told in a sentence, and nothing is lost."""

from __future__ import annotations

from ptwalk.scenario.runner import Run, run_lines
from ptwalk.scenario.script import parse


def _run(text: str) -> Run:
    return run_lines(parse(text))


def test_collapse_leaves_a_pinned_page_where_it_is() -> None:
    story = _run("mmap A v anon 2M\nfault A v 0..511 order 0\npin A v 7\ncollapse A v 0..511")
    assert any(note.startswith("-EAGAIN") for note in story.steps[-1].notes)


def test_fork_tells_that_a_pinned_pud_stays_behind() -> None:
    story = _run("mmap A v anon 1G\nfault A v pud order 18\npin A v 7\nfork A B")
    assert any("its PUD is not duplicated" in note for note in story.steps[-1].notes)


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
    from ptwalk.scenario.machine import Machine, Settings
    from ptwalk.scenario.script import Words
    from ptwalk.scenario.steps import STEPS

    machine = Machine(Settings(arch="arm64-4k"))
    for line in parse(BLOCK)[1:]:
        words = Words(line, "test")
        STEPS[words.verb](machine, words)
    process = machine.processes["A"]
    start = 0x2_0000_0000
    leaves = machine.leaves(process, start, start + 0x10000)
    assert [leaf.write for leaf in leaves].count(True) == 1
    assert machine.folded(process, start, start + 0x10000) == 0
