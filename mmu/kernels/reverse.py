"""The reverse map: from a frame of physical memory to every (space, virtual address) that maps it.

All leaves of all spaces are sorted by frame in two passes that a cache can follow (radix partition): first into buckets
of frames, then frame by frame inside each bucket (see `partition`). The result is in CSR form. Order within a frame is
that of the spaces, and ascending within a space. Blocks are kept by their own size, not cut into pages, and leaves that
point beyond RAM are kept in a sorted list.

The partition needs no memory beside the result but that for the largest bucket; with `folder` the result lives in files
there.
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
from .batch import LINE, empty_words
from .outline import Items, TreePlan, outline_of, plan_of
from .partition import SPACE_SHIFT, VA_BITS, VPN_SHIFT, drain, histogram, local_fill, partition
from .views import MemoryView, memory_view

U64 = np.uint64
Words = NDArray[np.uint64]
BUCKET_SHIFT = 12  # counters of one bucket: 32 KiB
MOST_BUCKETS = 1 << 11
MOST_FRAMES = 1 << 28  # frames kept in CSR form (1 TiB of 4 KiB); leaves beyond go to the sorted list
MOST_SPACES = 1 << 64 - SPACE_SHIFT


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
        return lambda name, size, kind: empty_words(size) if kind is np.uint64 else np.empty(size, kind)
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
        rows = np.zeros((LINE, (frames >> bucket_shift) + 2), np.int64)
        inside = wild = 0
        for part in self.parts:
            more = histogram(self.view, part.items, self.leaf(part), *shape, rows)
            inside, wild = inside + int(more[0]), wild + int(more[1])
        counts = rows.sum(0)
        counts[-1] = 0
        edges = np.cumsum(counts) - counts
        records, lines = self.make("mappings", inside, np.uint64), empty_words(len(counts) * LINE)
        wild_frames, wild_found = np.empty(wild, np.uint64), np.empty(wild, np.uint64)
        cursors, wild_at = edges.copy(), 0
        cuts = np.empty((len(self.parts) + 1, len(counts)), np.int64)
        for number, part in enumerate(self.parts):
            cuts[number] = cursors
            wild_at = partition(
                self.view, part.items, self.leaf(part), *shape, U64(part.space), edges, cursors, lines, records,
                wild_frames, wild_found, wild_at,
            )  # fmt: skip
        cuts[-1] = cursors
        drain(edges, cursors, lines, records)
        starts = self.make("starts", frames + 1, np.uint32 if inside < 1 << 32 else np.uint64)
        names = np.array([part.space for part in self.parts], np.uint64)
        self._fill(bucket_shift, frames, cuts, names, records, starts)
        starts[frames] = inside
        order = np.argsort(wild_frames, kind="stable")
        return starts, records, (wild_frames[order], wild_found[order])

    def _fill(self, bucket_shift: int, frames: int, cuts: Any, *arrays: Any) -> None:
        buckets, largest = -(-frames >> bucket_shift), int((cuts[-1] - cuts[0]).max())
        shares = [buckets * i // self.threads for i in range(self.threads + 1)]
        with ThreadPoolExecutor(self.threads) as pool:
            runs = [
                pool.submit(local_fill, first, end, bucket_shift, frames, empty_words(largest), cuts, *arrays)
                for first, end in itertools.pairwise(shares)
            ]
            for run in runs:
                run.result()


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
