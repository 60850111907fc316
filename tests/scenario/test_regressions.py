"""Scenarios that random ones (tests/rmap/space/test_stateful.py) found to go wrong once."""

from __future__ import annotations

import pytest

from ptwalk.arch.linux import LinuxFlags
from ptwalk.scenario.runner import Run, run_lines
from ptwalk.scenario.script import ScenarioError, parse

from .test_tables import tell


def story(text: str) -> Run:
    return run_lines(parse(text))


def test_a_file_s_folio_is_locked_while_it_migrates() -> None:
    """No fault maps it in between: filemap_fault waits for the lock, fault-around passes it over."""
    text = "file f file 64K\nfolio S f 0..3\nfolio T f 4..7\nmmap A v f\nmmap A w f private\nmigrate S begin\n"
    for access in ("read A v 0", "write A v 0", "read A w 0", "write A w 0"):
        waits = story(f"{text}{access}\nmigrate S end")
        assert waits.steps[-2].notes == ["the fault waits until the page has migrated"]
        assert waits.steps[-1].snapshot.folios["S'"].references == 4
    around = story(text + "read A v 5\nmigrate S end")
    assert around.steps[-1].snapshot.folios["T"].mapped == {"A": [(0, 0, 4)]}
    assert around.steps[-1].snapshot.folios["S'"].mapped == {}
    with pytest.raises(ScenarioError, match="S is under migration: the fault waits"):
        story(text + "fault A v 0")


def test_a_page_in_the_swap_cache_is_locked_while_it_migrates() -> None:
    text = "mmap A v anon 2M\nfault A v 0..3 order 2\nfork A B\nswapout A v\nmigrate F begin\n"
    assert story(text + "read A v 0\nmigrate F end").steps[-2].notes == ["the fault waits until the page has migrated"]
    assert story(text + "collapse A v 0..511").steps[-1].notes == ["-EAGAIN: F is under migration"]


@pytest.mark.parametrize("step", ["collapse A v 0..511 as G", "pin A v 0\nfork A B\nexit A"])
def test_new_pages_in_a_read_only_area_are_not_writable(step: str) -> None:
    """maybe_pmd_mkwrite in collapse_huge_page, maybe_mkwrite in copy_present_page."""
    machine = tell("x86_64", f"mmap A v anon 2M\nwrite A v 0\nmprotect A v ro\n{step}")
    leaves = [leaf for process in machine.processes.values() for leaf in process.leaves(0, 1 << 40)]
    assert [(leaf.write, LinuxFlags.DIRTY in leaf.flags) for leaf in leaves] == [(False, True)]


def test_a_device_waits_for_migration_as_a_fault_does() -> None:
    waits = story("mmap A v anon 16K\nwrite A v 0\nmigrate F begin\ndevice-exclusive A v 0\nmigrate F end")
    assert waits.steps[-2].notes == ["the fault waits until the page has migrated"]


def test_a_split_leaves_only_swapped_parts_in_the_swap_cache() -> None:
    text = "mmap A v anon 16K\nfault A v 0..3 order 2\nswapout A v 2\nsplit-folio F"
    assert {name: folio.refs for name, folio in tell("x86_64", text).folios.items()} == {
        "F+0": 1,
        "F+1": 1,
        "F+2": 1,
        "F+3": 1,
    }
    assert tell("x86_64", text + "\nexit A").folios == {}
