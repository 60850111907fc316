"""What a step wrote: batches in the kernel's order, additions first, neighbours joined, break-before-make told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptwalk.cli import run
from ptwalk.scenario.runner import run_lines
from ptwalk.scenario.script import parse
from ptwalk.scenario.trace import Written, lines


def written(text: str) -> list[Written]:
    entries = run_lines(parse(text), entries=True).steps[-1].entries
    assert entries is not None
    return entries


def test_a_split_adds_512_entries_before_the_pmd_goes() -> None:
    first, second = written("mmap A v anon 2M\nfault A v\nsplit A v")
    assert (first.level, first.entries, first.va, first.old) == ("PTE", 512, 0x1_0000_0000, "none")
    assert (second.level, second.entries) == ("PMD", 1)
    assert second.new.startswith("table")
    assert {one.reason for one in (first, second)} == {"split"}
    assert first.batches == second.batches == (1, 1)


def test_fork_writes_the_child_s_entry_and_protects_the_parent_s() -> None:
    child, *tables, parent = written("mmap A v anon 2M\nfault A v\nfork A B")
    assert (child.process, child.level, child.old) == ("B", "PMD", "none")
    assert [one.level for one in tables] == ["PGD", "PUD"]
    assert (parent.process, parent.reason) == ("A", "fork")
    assert "write" in parent.old.split()
    assert "write" not in parent.new.split()
    assert int(parent.raw[0], 16) ^ int(parent.raw[1], 16) == 1 << 1 | 1 << 6 | 1 << 58  # W, D to saved-dirty


def test_arm64_goes_through_invalid_where_the_block_s_size_changes() -> None:
    unfolded, cleared = written("arch arm64-4k\nmmap A v anon 64K\nfault A v\nzap A v 0..3")
    assert (unfolded.reason, unfolded.entries) == ("unfold", 16)
    assert "Contiguous" in unfolded.broke
    assert (cleared.reason, cleared.entries, cleared.new) == ("unmap", 4, "none")
    assert lines([unfolded])[1].endswith("(through invalid)")


def test_one_page_at_a_time_is_shown_as_batches() -> None:
    (migrated,) = written("mmap A v anon 64K\nfault A v\nmigrate F begin")
    assert (migrated.entries, migrated.batches) == (16, (1, 16))
    assert migrated.new == "migration write pfn 0x4000 young dirty"


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "t.scn"
    path.write_text("mmap A v anon 2M\nfault A v\nsplit A v\n")
    assert run(["rmap", "run", str(path), "--entries"]) == 0
    shown = capsys.readouterr().out.splitlines()
    at = shown.index("line 3: split A v")
    assert shown[at + 1 : at + 4] == [
        "  A, batch 1: split",
        "      0x0000000100000000 PTE x512  none -> present pfn 0x4000 write user young dirty",
        "      0x0000000100000000 PMD       present pfn 0x4000 write user young dirty -> "
        "table pfn 0x4 write user exec young",
    ]
    assert run(["rmap", "run", str(path), "--entries", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert steps[-1]["entries"][0]["entries"] == 512
    assert run(["rmap", "run", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][-1]["entries"] is None
