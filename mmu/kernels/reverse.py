"""The reverse map: from a frame of physical memory to every (space, virtual address) that maps it.

All leaves of all spaces are sorted by frame in two passes that a cache can follow (radix partition): first into buckets
of `BUCKET_FRAMES` frames, then frame by frame inside each bucket. The result is in CSR form. Order within a frame is
that of the spaces, and ascending within a space. Blocks are kept by their own size, not cut into pages, and leaves that
point beyond RAM are kept in a sorted list.

Memory needed beside the result: 12 bytes a leaf for the partition; with `folder` both the partition and the result live
in files there, and what stays in memory is some kilobytes a bucket.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...arch.errors import InputError
from ..machine import Machine
from ..memory import PhysicalMemory
from ..regime import Regime, Tree
from ..spaces import MAX_TABLES
from .access import load
from .host import peek
from .jit import helper, kernel
from .outline import Items, TreePlan, fetch, host_run, outline_of, plan_of
from .views import MemoryView, memory_view

U64 = np.uint64
Words = NDArray[np.uint64]
BUCKET_SHIFT = 14  # counters of one bucket: 64 KiB
MOST_BUCKETS = 1 << 11
MOST_FRAMES = 1 << 28  # frames kept in CSR form (1 TiB of 4 KiB); leaves beyond go to the sorted list
VPN_SHIFT, VA_BITS = 12, 57  # a mapping packs (va >> 12) of 57 bits with the number of its space
SPACE_SHIFT = VA_BITS - VPN_SHIFT
MOST_SPACES = 1 << 64 - SPACE_SHIFT
_0, _1, _3 = U64(0), U64(1), U64(3)


class Site(NamedTuple):
    """One way to a physical address: `va` in space `space`, through a page of `1 << page_shift` bytes."""

    space: str
    va: int
    page_shift: int


class _Leaf(NamedTuple):
    """How the last level's leaves are told and read."""

    mask: U64
    value: U64
    address: U64
    high: U64
    high_shift: U64
    shift: U64
    last: U64


@helper
def _pack(va: Any, space: Any) -> Any:
    return va << U64(64 - VA_BITS) >> U64(64 - VA_BITS + VPN_SHIFT) | space << U64(SPACE_SHIFT)


@kernel
def histogram(view: Any, items: Any, leaf: Any, frames: Any, bucket_shift: Any, counts: Any) -> Any:
    """Count the leaves of last-level tables by bucket; (leaves inside RAM's frames, leaves beyond)."""
    inside, wild = 0, 0
    for k in range(items.va.size):
        if items.depth[k] != leaf.last:
            continue
        host = host_run(view, items.pa[k], items.entry[k])
        if k + 1 < items.va.size and items.depth[k + 1] == leaf.last:
            fetch(view, items.pa[k + 1], items.entry[k + 1])
        for i in range(items.entry[k]):
            ok, e = True, _0
            if host != _0:
                e = peek(host + (U64(i) << _3))
            else:
                ok, e = load(view, _0, items.pa[k] + (U64(i) << _3))
            if ok and e & leaf.mask == leaf.value:
                frame = (e & leaf.address | (e & leaf.high) << leaf.high_shift) >> leaf.shift
                if frame < frames:
                    counts[frame >> bucket_shift] += 1
                    inside += 1
                else:
                    wild += 1
    return inside, wild


@kernel
def partition(
    view: Any, items: Any, leaf: Any, frames: Any, bucket_shift: Any, space: Any, cursors: Any, keys: Any, found: Any,
    wild_frames: Any, wild_found: Any, wild_at: Any,
) -> Any:  # fmt: skip
    """Write each leaf's frame and mapping into its bucket, or into the list of wild ones; where that list now ends."""
    for k in range(items.va.size):
        if items.depth[k] != leaf.last:
            continue
        host = host_run(view, items.pa[k], items.entry[k])
        if k + 1 < items.va.size and items.depth[k + 1] == leaf.last:
            fetch(view, items.pa[k + 1], items.entry[k + 1])
        va = items.va[k]
        for i in range(items.entry[k]):
            ok, e = True, _0
            if host != _0:
                e = peek(host + (U64(i) << _3))
            else:
                ok, e = load(view, _0, items.pa[k] + (U64(i) << _3))
            if ok and e & leaf.mask == leaf.value:
                frame = (e & leaf.address | (e & leaf.high) << leaf.high_shift) >> leaf.shift
                mapping = _pack(va + (U64(i) << leaf.shift), space)
                if frame < frames:
                    bucket = frame >> bucket_shift
                    at = cursors[bucket]
                    cursors[bucket] = at + 1
                    keys[at] = frame
                    found[at] = mapping
                else:
                    wild_frames[wild_at], wild_found[wild_at] = frame, mapping
                    wild_at += 1
    return wild_at


@kernel
def local_fill(
    first: Any, end: Any, bucket_shift: Any, frames: Any, edges: Any, keys: Any, found: Any, starts: Any, out: Any
) -> None:
    """Order buckets `first` to `end` by frame: `starts` of their frames, and their mappings in `out`."""
    width = 1 << int(bucket_shift)
    cursor = np.zeros(width, np.int64)
    for bucket in range(first, end):
        base = bucket << int(bucket_shift)
        size = min(width, int(frames) - base)
        begin, stop = edges[bucket], edges[bucket + 1]
        cursor[:] = 0
        for k in range(begin, stop):
            cursor[U64(keys[k]) - U64(base)] += 1
        at = begin
        for f in range(size):
            starts[base + f] = at
            count = cursor[f]
            cursor[f] = at
            at += count
        for k in range(begin, stop):
            slot = U64(keys[k]) - U64(base)
            out[cursor[slot]] = found[k]
            cursor[slot] += 1


@dataclass
class ReverseMap:
    """Who maps each frame: `mappings[starts[f]:starts[f + 1]]` for frame `f` of `1 << page_shift` bytes.

    `blocks` holds larger leaves by page size, `wild` leaves beyond RAM, each as (sorted frames, mappings).
    """

    names: Sequence[str]
    page_shift: int
    starts: NDArray[Any]
    mappings: Words
    blocks: dict[int, tuple[Words, Words]] = field(default_factory=dict)
    wild: tuple[Words, Words] = field(default_factory=lambda: (np.empty(0, np.uint64), np.empty(0, np.uint64)))

    def __len__(self) -> int:
        return len(self.mappings) + len(self.wild[0]) + sum(len(frames) for frames, _ in self.blocks.values())

    def lookup(self, pa: int) -> list[Site]:
        """Every mapping of the byte at `pa`, pages before blocks."""
        frame, found = pa >> self.page_shift, []
        if frame < len(self.starts) - 1:
            packed = self.mappings[int(self.starts[frame]) : int(self.starts[frame + 1])]
            found += [self._mapping(int(word), pa, self.page_shift) for word in packed]
        sorted_lists = [(self.page_shift, self.wild), *sorted(self.blocks.items())]
        for shift, (frames, packed) in sorted_lists:
            low, high = np.searchsorted(frames, [U64(pa >> shift), U64((pa >> shift) + 1)])
            found += [self._mapping(int(word), pa, shift) for word in packed[low:high]]
        return found

    def _mapping(self, word: int, pa: int, shift: int) -> Site:
        va = (word & (1 << SPACE_SHIFT) - 1) << VPN_SHIFT
        va |= -(va >> VA_BITS - 1) << VA_BITS & (1 << 64) - 1
        return Site(self.names[word >> SPACE_SHIFT], va | pa & (1 << shift) - 1, shift)


class _Part(NamedTuple):
    space: int
    plan: TreePlan
    items: Items


def reverse_map(
    memory: PhysicalMemory | MemoryView,
    spaces: Mapping[str, Regime],
    *,
    trees: Callable[[Tree], bool] = lambda tree: True,
    ram: int = 0,
    max_tables: int = MAX_TABLES,
    threads: int = 1,
    folder: Path | None = None,
) -> ReverseMap:
    """The reverse map of several address spaces over one memory.

    `trees` chooses which trees of each space count (the kernel's half is much the same in all). `ram` is where RAM
    ends, in bytes, for a view; a PhysicalMemory tells it itself. With `folder` arrays live in files there, which go
    when the map goes.
    InputError: spaces of different page sizes, or too many of them. SpaceLimitError: see `leaves`.
    """
    if len(spaces) > MOST_SPACES:
        raise InputError(f"a reverse map takes at most {MOST_SPACES} spaces", field="spaces", value=len(spaces))
    view: Any = memory_view(memory) if isinstance(memory, PhysicalMemory) else memory
    if isinstance(memory, PhysicalMemory):
        ram = memory.banks[-1].end if memory.banks else 0
    parts = []
    for number, regime in enumerate(spaces.values()):
        for tree in filter(trees, regime.trees):
            if tree.entry_size != 8:
                raise InputError("a reverse map takes 8-byte entries", field="entry size", value=tree.entry_size)
            plan = plan_of(regime, tree)
            parts.append(_Part(number, plan, outline_of(view, plan, 0, max_tables)[0]))
    sizes = {part.plan.tree.levels[-1].shift for part in parts}
    if len(sizes) > 1:
        text = f"the spaces of one reverse map share a page size, these have {sorted(1 << s for s in sizes)}"
        raise InputError(text, field="page size")
    shift = sizes.pop() if sizes else VPN_SHIFT
    files = Path(tempfile.mkdtemp(prefix="ptwalk-", dir=folder)) if folder is not None else None
    build = _Build(view, parts, shift, ram, _maker(files), threads)
    starts, mappings, wild = build.run()
    result = ReverseMap(list(spaces), shift, starts, mappings, _blocks(parts), wild)
    if files is not None:
        weakref.finalize(result, shutil.rmtree, files)
    return result


def _maker(files: Path | None) -> Callable[[str, int, Any], Any]:
    """What makes the large arrays: memory, or files in a temporary folder."""
    if files is None:
        return lambda name, size, kind: np.empty(size, kind)
    return lambda name, size, kind: np.memmap(files / name, kind, "w+", shape=(max(1, size),))[:size]


@dataclass
class _Build:
    """The passes over all parts."""

    view: Any
    parts: Sequence[_Part]
    shift: int
    ram: int
    make: Callable[[str, int, Any], Any]
    threads: int

    def leaf(self, part: _Part) -> _Leaf:
        kind, last = part.plan.leaves[-1], len(part.plan.tree.levels) - 1
        words = (kind.mask, kind.value, kind.address, kind.high, kind.high_shift, self.shift, last)
        return _Leaf(*(U64(word) for word in words))

    def run(self) -> tuple[NDArray[Any], Words, tuple[Words, Words]]:
        frames = min(self.ram >> self.shift, MOST_FRAMES)
        bucket_shift = max(BUCKET_SHIFT, (max(1, frames) - 1).bit_length() - (MOST_BUCKETS.bit_length() - 1))
        shape = U64(frames), U64(bucket_shift)
        counts = np.zeros((frames >> bucket_shift) + 1, np.int64)
        inside = wild = 0
        for part in self.parts:
            more = histogram(self.view, part.items, self.leaf(part), *shape, counts)
            inside, wild = inside + int(more[0]), wild + int(more[1])
        edges = np.concatenate([[0], np.cumsum(counts)])
        keys, found = self.make("keys", inside, np.uint32), self.make("found", inside, np.uint64)
        wild_frames, wild_found = np.empty(wild, np.uint64), np.empty(wild, np.uint64)
        cursors, wild_at = edges[:-1].copy(), 0
        for part in self.parts:
            wild_at = partition(
                self.view, part.items, self.leaf(part), *shape, U64(part.space), cursors, keys, found,
                wild_frames, wild_found, wild_at,
            )  # fmt: skip
        starts = self.make("starts", frames + 1, np.uint32 if inside < 1 << 32 else np.uint64)
        mappings = self.make("mappings", inside, np.uint64)
        self._fill(bucket_shift, frames, edges, keys, found, starts, mappings)
        starts[frames] = inside
        order = np.argsort(wild_frames, kind="stable")
        return starts, mappings, (wild_frames[order], wild_found[order])

    def _fill(self, bucket_shift: int, frames: int, edges: Any, *arrays: Any) -> None:
        buckets = -(-frames >> bucket_shift)
        cuts = [buckets * i // self.threads for i in range(self.threads + 1)]
        with ThreadPoolExecutor(self.threads) as pool:
            shares = [
                pool.submit(local_fill, first, end, bucket_shift, frames, edges, *arrays)
                for first, end in itertools.pairwise(cuts)
            ]
            for share in shares:
                share.result()


def _blocks(parts: Sequence[_Part]) -> dict[int, tuple[Words, Words]]:
    """The leaves above the last level, by page size, sorted by frame."""
    rows: dict[int, list[tuple[int, int]]] = {}
    for part in parts:
        tree, items = part.plan.tree, part.items
        for k in np.flatnonzero(items.depth != len(tree.levels) - 1).tolist():
            depth, entry, va = int(items.depth[k]), int(items.entry[k]), int(items.va[k])
            kind, shift = part.plan.leaves[depth], tree.levels[depth].shift
            pa = entry & kind.address | (entry & kind.high) << kind.high_shift
            packed = (va & (1 << VA_BITS) - 1) >> VPN_SHIFT | part.space << SPACE_SHIFT
            rows.setdefault(shift, []).append((pa >> shift, packed))
    found = {}
    for shift, pairs in rows.items():
        pairs.sort(key=lambda pair: pair[0])
        found[shift] = np.array([f for f, _ in pairs], np.uint64), np.array([m for _, m in pairs], np.uint64)
    return found


def ptov(machine: Machine, pa: int) -> list[Site]:
    """Every (space, va) of a machine's address spaces that maps the byte at `pa`.

    A machine without named spaces answers for its own registers, under the name ''.
    """
    spaces = {name: machine.regime(name) for name in machine.spaces} or {"": machine.regime()}
    return reverse_map(machine.memory, spaces).lookup(pa)


__all__ = ["ReverseMap", "Site", "ptov", "reverse_map"]
