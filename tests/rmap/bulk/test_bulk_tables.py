"""Bulk operations on real page tables leave what the operations leave: every entry, every counter, every observer."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import LinuxFlags, Paging, linux_for
from ptwalk.mmu.recorder import Recorder
from ptwalk.rmap.bulk_kernels import protected
from ptwalk.rmap.bulk_tables import BulkTables
from ptwalk.rmap.errors import Rejected
from ptwalk.rmap.operations import unmap
from ptwalk.rmap.operations.fork import fork
from ptwalk.rmap.space.process import READ, Process
from ptwalk.rmap.space.recount import recount_problems
from ptwalk.rmap.space.system import ARCHES, System

from ...scenario.test_tables import tell

STORY = """file f shmem 1M
folio S f 0..7
folio T f 8..15
mmap A v anon 4M
fault A v 0..31 order 4
fault A v 32..47 order 0
mmap A w f
fault A w 0..11
fork A Z
zap A v 3
write A v 40
write A v 5
exit Z
write A v 20
swapcache F2 on"""


def state(system: System) -> list[object]:
    """Everything that an operation may change, frames of page tables left out."""
    folios = [
        (name, f.kind, f.refs, f.exclusive.key(), [(c.key(), c.mm_id, c.nr) for c in f.counters.values()])
        for name, f in sorted(system.folios.items())
    ]
    stats = [(model.name, vars(model.stats)) for model in system.acct.models.values()]
    queues = [[system.name_of(f) for f in m.deferred_split_queue] for m in system.acct.models.values()]
    return [folios, stats, queues, {name: entries(process) for name, process in system.processes.items()}]


def entries(process: Process) -> list[tuple[int, int]]:
    return [(entry.va, entry.raw) for entry in process.tables.raw(0, process.tables.tree.va_end)]


@pytest.mark.parametrize("arch", ARCHES)
def test_fork_and_unmap_in_bulk_are_fork_and_unmap(arch: str) -> None:
    one, bulk = tell(arch, STORY), tell(arch, STORY)
    assert state(one) == state(bulk)
    assert fork(one, one.processes["A"], "B", files=True) == []
    child, parent = bulk.process("B"), bulk.processes["A"]
    heard = [Recorder(parent.editor), Recorder(child.editor)]
    before = entries(parent)
    with BulkTables(bulk) as tables:
        for area in parent.areas.values():
            child.areas[area.name] = area.copy()
            tables.fork(parent, child, area.start, area.end)
    assert state(one) == state(bulk)
    assert recount_problems(bulk) == []
    changed = {change.va: (change.old, change.new) for batch in heard[0].batches for change in batch}
    assert changed == {va: (old, dict(entries(parent))[va]) for va, old in before if dict(entries(parent))[va] != old}
    rng = random.Random(7)
    for _ in range(6):
        name = rng.choice("AB")
        first = rng.randrange(40)
        pages = slice(first, first + rng.choice([1, 5, 16]))
        where = [system.processes[name].areas["v"] for system in (one, bulk)]
        unmap.zap(one, one.processes[name], where[0].va(pages.start), where[0].va(pages.stop))
        with BulkTables(bulk) as tables:
            tables.unmap(bulk.processes[name], where[1].va(pages.start), where[1].va(pages.stop))
        assert state(one) == state(bulk), "seed 7"
        assert recount_problems(bulk) == []


@pytest.mark.parametrize("arch", ARCHES)
def test_map_in_bulk_is_a_file_fault(arch: str) -> None:
    system = tell(arch, STORY)
    process, area = system.processes["A"], system.processes["A"].areas["w"]
    with BulkTables(system) as tables:
        tables.map(process, area.va(12), system.folios["T"], 4, 4, READ)
    assert recount_problems(system) == []
    assert [(leaf.folio, leaf.page) for leaf in process.leaves(area.va(12), area.va(16))] == [
        (system.folios["T"], page) for page in range(4, 8)
    ]
    with pytest.raises(Rejected, match="bulk map stopped before entry 0"), BulkTables(system) as tables:
        tables.map(process, area.va(12), system.folios["T"], 4, 4, READ)
    assert recount_problems(system) == []


def test_what_is_not_for_bulk_is_refused_and_nothing_is_lost() -> None:
    system = tell("x86_64", "mmap A v anon 4M\nfault A v 0..511 pmd\nfault A v 512..527 order 4\nswapout A v 515")
    process, area = system.processes["A"], system.processes["A"].areas["v"]
    with pytest.raises(InputError, match="a larger leaf is in the way"), BulkTables(system) as tables:
        tables.unmap(process, area.start, area.end)
    with pytest.raises(Rejected, match="bulk unmap stopped before entry 3"), BulkTables(system) as tables:
        tables.unmap(process, area.va(512), area.va(528))
    assert recount_problems(system) == []
    assert len(process.leaves(area.va(512), area.end)) == 12


@pytest.mark.parametrize(
    ("arch", "paging"),
    [
        ("x86_64", Paging(12, (4, 3, 2, 1))),
        ("arm64", Paging(12, (0, 1, 2, 3))),
        ("arm64", Paging(14, (0, 1, 2, 3))),
        ("arm64", Paging(16, (1, 2, 3))),
    ],
)
def test_the_masks_write_protect_as_linux_does(arch: str, paging: Paging) -> None:
    linux = linux_for(arch, "7.3", paging)
    rng = random.Random(3)
    masks = tuple(map(np.uint64, linux.wrprotect))
    level = paging.levels[-1]
    base = linux.page(level, 0x123, LinuxFlags.USER | LinuxFlags.YOUNG)
    seen = set()
    for _ in range(2000):
        raw = base
        for mask in (*linux.wrprotect, 1 << 6, 1 << 7):
            raw ^= mask if rng.random() < 0.5 else 0
        want = linux.clear(level, raw, LinuxFlags.WRITE)
        if raw & linux.wrprotect[0] == 0 and want != raw:
            continue  # x86: a read-only entry with the hardware's dirty bit is a shadow stack's
        assert int(protected(np.uint64(raw), masks)) == want, (hex(raw), "seed 3")
        seen.add((raw, want))
    assert len(seen) > 3
