"""Leaves and ranges by kernel are those of the reference enumeration; both are those that walks find."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import numpy as np
import pytest

from ptwalk.mmu import spaces
from ptwalk.mmu.kernels.spaces import leaves, leaves_in_parts, ranges
from ptwalk.mmu.machine import regime_from_registers
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.spaces import SpaceLimitError
from ptwalk.mmu.walk import Translation, outcome

from .hostile import MODES, regime_of, tables


def tame(mode, seed):
    """A tree of tables that ends: each table is entered a few times only."""
    rng = random.Random(f"{mode} {seed}")
    regime = regime_of(mode)
    granule = 1 << regime.trees[0].levels[-1].shift
    memory = PhysicalMemory()
    memory.add_ram(0, 4 << 20)
    memory.add_ram(4 << 20, 4 << 20)
    free = list(range(0x100000, 8 << 20, granule))
    rng.shuffle(free)
    table, page, block = (0x67, 0x67, 0xE7) if regime.arch == "x86_64" else (3, 0x443, 0x441)

    def fill(levels, pa, first, count):
        size = 1 << levels[0].shift
        last = len(levels) == 1
        run = rng.getrandbits(30) >> levels[0].shift << levels[0].shift
        window = range(begin := rng.randrange(max(1, count - 90)), min(count, begin + 90)) if last else range(count)
        for i in sorted(rng.sample(window, min(len(window), 60 if last else 4))):
            at, flags = pa + (first + i) * 8, page
            kind = rng.random()
            if kind < 0.05:
                memory.write_uint(at, rng.getrandbits(64))
                continue
            if not last and kind < 0.75 and len(free) > 8:
                below = free.pop() if rng.random() < 0.98 else 0x4000_0000
                flags = table ^ (rng.choice([0, 0, 2, 4]) if regime.arch == "x86_64" else rng.choice([0, 1 << 62]))
                memory.write_uint(at, flags | below)
                if below < 8 << 20:
                    fill(levels[1:], below, 0, levels[1].entries)
                continue
            flags = page if last else block
            for _ in range(rng.choice([0, 0, 0, 1])):
                flags ^= 1 << rng.choice([1, 2, 5, 6, 7, 9, 10, 11, 53, 54, 55, 58, 63])
            memory.write_uint(at, flags | (run + i * size) % (1 << 31))

    for tree in regime.trees:
        top = tree.levels[0]
        fill(tree.levels, tree.root, top.index(tree.va_start), tree.va_end - tree.va_start >> top.shift)
    return memory, regime


@pytest.mark.parametrize("mode", MODES)
def test_leaves_and_ranges_equal_the_reference(mode):
    total = 0
    for seed in range(4):
        memory, regime = tame(mode, seed)
        broken = []
        wanted = list(spaces.leaves(memory, regime, report=broken.append))
        got = leaves(memory, regime)
        total += len(wanted)
        assert got.va.tolist() == [leaf.va for leaf in wanted]
        assert got.entry.tolist() == [leaf.entry for leaf in wanted]
        assert got.pa.tolist() == [leaf.pa for leaf in wanted]
        assert got.level.tolist() == [leaf.level.number for leaf in wanted]
        assert got.rights.tolist() == [int(leaf.rights) for leaf in wanted]
        assert sorted(got.broken, key=str) == sorted(broken, key=str)
        merged = ranges(memory, regime)
        expected = list(spaces.ranges(wanted, physical=True))
        rows = zip(merged.va, merged.size, merged.pa, merged.flags, merged.level, merged.rights, strict=True)
        assert [tuple(map(int, row)) for row in rows] == [
            (r.va, r.size, r.pa, r.flags, r.level.number, int(r.rights)) for r in expected
        ]
        assert len(expected) < len(wanted)
    assert total > 500


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_lists_what_walks_translate(mode):
    memory, regime = tame(mode, 9)
    listed = list(spaces.leaves(memory, regime))
    rng = random.Random(mode)
    for leaf in rng.sample(listed, 100):
        result = outcome(regime.walk(memory, leaf.va))
        group = "Contiguous" in leaf.layout and leaf.layout["Contiguous"].get(leaf.entry)  # takes pa bits from the va
        if isinstance(result, Translation) and not group:
            assert (result.pa, result.level, result.rights) == (leaf.pa, leaf.level.number, leaf.rights)
    for first, second in itertools.pairwise(listed):
        if first.va + first.size < second.va and first.level == second.level:
            gap = outcome(regime.walk(memory, first.va + first.size))
            assert not isinstance(gap, Translation) or first.va + first.size >= 1 << 55


@pytest.mark.parametrize("mode", ["x86-4level", "arm64-16k-47"])
def test_self_referencing_tables_end_in_an_error_that_says_where(mode):
    memory, regime = tables(mode, 1)
    with pytest.raises(SpaceLimitError) as reference:
        list(spaces.leaves(memory, regime, max_tables=300))
    for listing in (leaves, ranges):
        with pytest.raises(SpaceLimitError) as limit:
            listing(memory, regime, max_tables=300)
        assert str(limit.value) == str(reference.value)
        assert limit.value.tables == 300


@pytest.mark.parametrize("mode", MODES)
def test_parts_are_the_whole_and_hold_no_more_than_their_room(mode):
    listed, several = 0, 0
    for seed in range(3):
        memory, regime = tame(mode, seed)
        try:
            whole = leaves(memory, regime)
        except SpaceLimitError:
            continue
        for room in (1, 64, 1000, 1 << 20):
            parts = list(leaves_in_parts(memory, regime, room=room))
            most = max(tree.levels[-1].entries for tree in regime.trees)
            assert all(len(part) <= max(room, most) for part in parts)
            for name in ("va", "entry", "pa", "level", "page_shift", "rights"):
                joined = [value for part in parts for value in getattr(part, name).tolist()]
                assert joined == getattr(whole, name).tolist(), (name, f"seed {seed}")
            broken = sorted((b.va, b.entry_pa) for part in parts for b in part.broken)
            assert broken == sorted((b.va, b.entry_pa) for b in whole.broken)
            several += len(parts) > 1
        listed += len(whole)
    assert listed > 100
    assert several


def test_parts_bound_the_memory_of_a_large_space():
    """2 GiB of 4K pages: half a million leaves in parts of 16,384 need no array of more than a part's leaves."""
    memory = PhysicalMemory()
    memory.add_ram(0, 8 << 20)
    for number in range(2):
        memory.write_uint(0x2000 + 8 * number, 0x3000 + (number << 12) | 0x67)
    memory.write_uint(0x1000, 0x2067)
    for number in range(1024):
        pa = 0x10000 + (number << 12)
        memory.write_uint(0x3000 + (number // 512 << 12) + number % 512 * 8, pa | 0x67)
        table = (np.arange(512, dtype=np.uint64) + np.uint64(number * 512) << np.uint64(12)) | np.uint64(0x67)
        memory.window(pa, 4096)[:] = memoryview(table).cast("B")
    regime = regime_from_registers("x86_64", {"CR3": 0x1000}, {})
    list(leaves_in_parts(memory, regime, room=1 << 14))  # compiled, and the tables touched
    tracemalloc.start()
    count = sum(len(part) for part in leaves_in_parts(memory, regime, room=1 << 14))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1 << 19
    assert peak < 3 << 20, "16 bytes for each of 16,384 leaves twice, 48 for each of 1,024 tables, and small change"
