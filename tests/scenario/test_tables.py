"""What the steps leave in the page tables: rights, the contiguous bit, freed tables and folios."""

from __future__ import annotations

import pytest

from ptwalk.arch.linux import LinuxFlags
from ptwalk.rmap.levels import Level
from ptwalk.rmap.space.system import ARCHES, Settings, System
from ptwalk.scenario import snapshot
from ptwalk.scenario.script import Words, parse
from ptwalk.scenario.steps import STEPS


def tell(arch: str, text: str) -> System:
    """Run steps, everything recounted after each."""
    machine = System(Settings(arch))
    for line in parse(text):
        words = Words(line, "story")
        STEPS[words.verb](machine, words)
        words.done()
        snapshot.take(machine)
    return machine


def writable(machine: System, name: str) -> list[int]:
    process = machine.processes[name]
    area = process.areas["v"]
    end = area.start + area.nr_pages * machine.page_size
    return [leaf.page for leaf in process.leaves(area.start, end) if leaf.write]


@pytest.mark.parametrize("arch", ARCHES)
def test_fork_write_protects_both(arch: str) -> None:
    story = "mmap A v anon 1M\nfault A v 0..15"
    assert writable(tell(arch, story), "A") == list(range(16))
    machine = tell(arch, story + "\nfork A B")
    assert writable(machine, "A") == writable(machine, "B") == []
    machine = tell(arch, story + "\nfork A B\ncow B v 3\nexit A\ncow B v 4")
    assert writable(machine, "B") == [0, 4]  # the copy is page 0 of its own folio


@pytest.mark.parametrize("arch", ["x86_64", "arm64-4k", "arm64-16k", pytest.param("arm64-64k", marks=pytest.mark.slow)])
def test_exit_leaves_nothing(arch: str) -> None:
    order = {"x86_64": 9, "arm64-4k": 9, "arm64-16k": 11, "arm64-64k": 13}[arch]
    size = (ARCHES[arch][1] << order) >> 20
    last = (1 << order) - 1
    machine = System(Settings(arch))
    free = machine.table_frames.free_frames
    text = f"""mmap A v anon {size}M
        fault A v 0..{last} pmd
        fork A B
        zap A v 7
        split B v
        cow B v 9
        mremap B v at 0x3_0000_0000
        exit A
        exit B"""
    machine = tell(arch, text)
    assert machine.folios == {}
    assert machine.processes == {}
    assert all(model.stats.nr == [0] * 5 for model in machine.acct.models.values())
    assert all(not model.deferred_split_queue for model in machine.acct.models.values())
    assert free - machine.table_frames.free_frames == 2  # the two roots


@pytest.mark.parametrize(("arch", "block"), [("arm64-4k", 16), ("arm64-16k", 128), ("arm64-64k", 32)])
def test_contiguous_blocks_are_folded_whole_or_not_at_all(arch: str, block: int) -> None:
    def folded(text: str) -> int:
        machine = tell(arch, f"mmap A v anon 32M\nfault A v 0..{4 * block - 1}\n{text}")
        area = machine.processes["A"].areas["v"]
        return machine.processes["A"].folded(area.start, area.start + area.nr_pages * machine.page_size)

    assert folded("") == 4 * block
    assert folded("fork A B") == 4 * block
    assert folded(f"zap A v 0..{block - 1}") == 3 * block
    assert folded("zap A v 3") == 3 * block
    assert folded(f"zap A v {block - 1}..{block}") == 2 * block
    assert folded(f"mprotect A v 1..{2 * block} ro") == 2 * block
    assert folded("fork A B\nexit B\ncow A v 0") == 3 * block


def test_a_split_keeps_rights_and_dirt() -> None:
    machine = tell("x86_64", "mmap A v anon 2M\nfault A v\nfork A B\nsplit A v")
    for name, level, flags in (
        ("A", Level.PTE, LinuxFlags.DIRTY | LinuxFlags.YOUNG),
        ("B", Level.PMD, LinuxFlags.DIRTY),  # fork makes the child's entry old
    ):
        process = machine.processes[name]
        area = process.areas["v"]
        leaf = process.leaves(area.start, area.start + 1)[0]
        assert (leaf.level, leaf.flags) == (level, flags)
