"""Whole address spaces: every leaf with the rights its path grants, and equal neighbours merged.

Written against `Regime`: trees and levels are data, entries are classified by the regime and rights are those of the
reference walker. Tables may point at themselves, so the number of tables read is bounded; reaching the bound is an
error that says where, after everything before it has been yielded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from ..arch.errors import BusError, PtwalkError
from ..arch.layout import ADDRESS, SOFTWARE, Layout
from .memory import Memory, PhysicalMemory
from .regime import EntryType, Regime, Tree
from .walk import Level, Rights

MAX_TABLES = 1 << 17  # 256 GiB of 4 KiB pages
NOT_COMPARED = frozenset({"A", "D"})  # bits that the processor sets on its own


class SpaceLimitError(PtwalkError):
    """An enumeration that read its full number of tables before it reached the end of the address space.

    >>> print(SpaceLimitError(0x1000, 2))
    stopped at virtual address 0x0000000000001000 after 2 tables: the space goes on, or its tables point at themselves
    """

    def __init__(self, va: int, tables: int) -> None:
        self.va, self.tables = va, tables
        super().__init__(
            f"stopped at virtual address {va:#018x} after {tables} tables: "
            "the space goes on, or its tables point at themselves"
        )


@dataclass(frozen=True, slots=True)
class Leaf:
    """One mapped page or block: `size` bytes at `va` go to `pa`; `rights` are those of the whole path.

    `pa` is the address in the entry; a misplaced arm64 entry with the Contiguous bit translates elsewhere.
    """

    va: int
    pa: int
    level: Level
    entry: int
    entry_pa: int
    rights: Rights
    layout: Layout

    @property
    def size(self) -> int:
        return 1 << self.level.shift

    @property
    def flags(self) -> int:
        """The leaf's hardware bits without address and software bits and without those the processor sets."""
        return self.entry & flags_mask(self.layout)


@dataclass(frozen=True, slots=True)
class Range:
    """Neighbouring leaves of one page size with equal rights and flags: `size` bytes at `va`; `pa` of the first."""

    va: int
    size: int
    pa: int
    level: Level
    rights: Rights
    flags: int
    layout: Layout

    @property
    def end(self) -> int:
        return self.va + self.size


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry that no walk gets through: reserved bits, or no memory where it should be (told once for a table)."""

    va: int
    level: Level
    entry: int
    entry_pa: int
    reason: str


_MASKS: dict[str, int] = {}


def flags_mask(layout: Layout) -> int:
    """The bits of a leaf that tell neighbours apart: hardware bits but address, accessed and dirty."""
    if layout.name not in _MASKS:
        fields = (f for f in layout.values() if f.role not in (ADDRESS, SOFTWARE) and f.name not in NOT_COMPARED)
        _MASKS[layout.name] = layout.mask(*(f.name for f in fields))
    return _MASKS[layout.name]


@dataclass(slots=True)
class _Frame:
    """One table on the way down: its entries from `index`, which lies at `va`, to `end`."""

    depth: int
    va: int
    pa: int
    words: list[int | None]
    index: int
    path: tuple[int, ...]


class _Enumeration:
    """The depth-first pass over one regime's trees; `report` hears of entries that lead nowhere."""

    def __init__(self, memory: Memory, regime: Regime, max_tables: int, report: Callable[[Broken], None] | None):
        self.memory, self.regime, self.report = memory, regime, report
        self.max_tables, self.tables = max_tables, 0
        self.rights: dict[tuple[int, tuple[int, ...]], Rights] = {}  # of one tree

    def leaves(self, tree: Tree) -> Iterator[Leaf]:
        self.rights.clear()
        root = tree.levels[0]
        first = root.index(tree.va_start)
        count = tree.va_end - tree.va_start >> root.shift
        stack = [self.enter(tree, 0, tree.va_start, tree.root + first * tree.entry_size, count, ())]
        while stack:
            frame = stack[-1]
            if frame.index == len(frame.words):
                stack.pop()
                continue
            index, level = frame.index, tree.levels[frame.depth]
            frame.index += 1
            raw, va = frame.words[index], frame.va + (index << level.shift)
            if raw == 0:
                continue
            entry_pa = frame.pa + index * tree.entry_size
            if raw is None:
                self.tell(Broken(va, level, 0, entry_pa, "no memory"))
                continue
            entry = self.regime.classify(level, raw)
            path = (*frame.path, raw & ~entry.layout.address_mask)
            if entry.type is EntryType.TABLE:
                below = tree.levels[frame.depth + 1].entries
                stack.append(self.enter(tree, frame.depth + 1, va, entry.pa, below, path))
            elif entry.type is EntryType.LEAF:
                rights = self.rights_of(va, level, path)
                yield Leaf(va, entry.pa, level, raw, entry_pa, rights, entry.layout)
            elif entry.type is EntryType.RESERVED:
                self.tell(Broken(va, level, raw, entry_pa, "reserved bits or an impossible address"))

    def enter(self, tree: Tree, depth: int, va: int, pa: int, count: int, path: tuple[int, ...]) -> _Frame:
        if self.tables == self.max_tables:
            raise SpaceLimitError(va, self.tables)
        self.tables += 1
        words = read_entries(self.memory, pa, count, tree.entry_size)
        if all(word is None for word in words):
            self.tell(Broken(va, tree.levels[depth], 0, pa, "no memory"))
            words = []
        return _Frame(depth, va, pa, words, 0, path)

    def tell(self, broken: Broken) -> None:
        if self.report is not None:
            self.report(broken)

    def rights_of(self, va: int, level: Level, path: tuple[int, ...]) -> Rights:
        """What the reference walker grants on this path; paths that differ in addresses alone share the answer."""
        key = (level.number, path)
        if key not in self.rights:
            self.rights[key] = granted(self.memory, self.regime, va)
        return self.rights[key]


def granted(memory: Memory, regime: Regime, va: int) -> Rights:
    """The rights that the entries on the path of a mapped `va` grant, whatever a walk of it ends in."""
    rights = Rights(0)
    for step in regime.walk(memory, va):
        rights = step.rights
    return rights


def read_entries(memory: Memory, pa: int, count: int, size: int = 8) -> list[int | None]:
    """`count` entries of `size` bytes from `pa`; None for those that no memory backs."""
    if isinstance(memory, PhysicalMemory) and size != 16:
        try:
            return list(struct.unpack(f"<{count}{'Q' if size == 8 else 'I'}", memory.read(pa, count * size)))
        except BusError:
            pass  # told entry by entry below
    entries: list[int | None] = []
    for i in range(count):
        try:
            entries.append(memory.read_uint(pa + i * size, size))
        except BusError:
            entries.append(None)
    return entries


def leaves(
    memory: Memory,
    regime: Regime,
    *,
    max_tables: int = MAX_TABLES,
    report: Callable[[Broken], None] | None = None,
) -> Iterator[Leaf]:
    """Every leaf of a regime's trees in ascending order; SpaceLimitError once `max_tables` tables have been read.

    Entries that lead nowhere (reserved bits, tables outside memory) are told to `report`.
    """
    enumeration = _Enumeration(memory, regime, max_tables, report)
    for tree in regime.trees:
        yield from enumeration.leaves(tree)


def ranges(leaves: Iterable[Leaf], *, physical: bool = False) -> Iterator[Range]:
    """Leaves merged while va, page size, rights and flags go on alike; with `physical` the pa has to go on too."""
    now: Range | None = None
    for leaf in leaves:
        new = Range(leaf.va, leaf.size, leaf.pa, leaf.level, leaf.rights, leaf.flags, leaf.layout)
        if now is not None and _continues(now, new, physical):
            now = replace(now, size=now.size + new.size)
            continue
        if now is not None:
            yield now
        now = new
    if now is not None:
        yield now


def _continues(now: Range, new: Range, physical: bool) -> bool:
    return (
        now.end == new.va
        and (now.level, now.rights, now.flags, now.layout) == (new.level, new.rights, new.flags, new.layout)
        and (not physical or now.pa + now.size == new.pa)
    )
