"""Plans for the fast forms, learned from the reference walker.

What an architecture's rules make of an entry is written once, in its walker. `plan_for` puts small trees of tables
before that walker and watches: which bits have to be what (`mask` and `value`), which combinations of the rights bits
allow the access and with what rights (`lut`), what is written back, which address bits have to agree. A bit whose
effect is not one of those that the forms know is made one that has to keep its usual value; entries where it differs
are then left to the full rules. A regime that does not fit at all has no plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...arch.errors import BusError
from ..memory import WordMemory
from ..regime import Regime, Tree
from ..walk import Access, Fault, Outcome, Translation, outcome
from .batch import pack_info
from .format import LUT_ROW, Format, Plan
from .host import host_address
from .shapes import ALL, Shape, shape_of

U64 = np.uint64
UNBACKED = ALL & ~0xFFFF  # a root that no memory holds: every walk from it is left to the full rules
MAX_DEPTH = 8


@dataclass
class _Bits:
    """What flipping each bit of one kind of entry does; `mask` and `value` are what the entry has to look like."""

    mask: int = 0
    value: int = 0
    need: int = 0
    set: int = 0
    clear: int = 0
    fold: int = 0
    modifier: int = 0

    def must(self, bit: int, base: int) -> None:
        self.mask |= bit
        self.value |= bit & base


_NEVER = _Bits(mask=0, value=1)  # no entry satisfies it


@dataclass
class _Learned:
    """What the walker taught about one half of the address space."""

    lut: list[int]
    none_info: list[int]
    group: list[int]
    table: _Bits
    page: _Bits
    blocks: list[_Bits] = field(default_factory=list)


class _Refusal(Exception):
    """The regime does not behave as any plan can say."""


class _Pupil:
    """Asks the reference walker about one tree of a regime."""

    def __init__(self, regime: Regime, tree: Tree, shape: Shape, access: Access, faults: Sequence[str]) -> None:
        self.regime, self.tree, self.shape, self.access, self.faults = regime, tree, shape, access, faults
        self.depths = len(tree.levels)
        self.va = tree.va_start + 0x568
        for depth, level in enumerate(tree.levels):
            span = tree.va_end - tree.va_start >> level.shift if depth == 0 else level.entries
            ones = min(span, level.entries) - 1
            self.va += (ones & ~(depth << max(0, level.index_bits - 3))) << level.shift
        self.usual = [shape.table | depth + 1 << int(shape.format.page_shift) for depth in range(self.depths - 1)]

    def ask(self, raws: Sequence[int], va: int | None = None) -> Outcome:
        """The outcome of a walk through these entries, placed where the model says the walk will look for them."""
        words, table = {}, self.tree.root
        for level, raw in zip(self.tree.levels, raws, strict=False):
            words[table + level.index(self.va) * 8] = raw
            table = self.shape.address(raw)
        try:
            return outcome(self.regime.walk(WordMemory(words), self.va if va is None else va, self.access))
        except BusError as error:
            raise _Refusal from error

    def info(self, result: Outcome) -> int:
        """The info word of an outcome; 0 for a refusal of a leaf (the caller knows that it got that far)."""
        return 0 if isinstance(result, Fault) else pack_info(result, self.faults)

    def learn(self) -> _Learned:
        last = self.depths - 1
        self.lut = [0] * (LUT_ROW * self.depths)
        self.low = [(1 << level.shift) - 1 for level in self.tree.levels]
        self.group = list(self.low)
        self._rights(last, self.shape.page)
        allowed = [i for i in range(LUT_ROW) if self.lut[LUT_ROW * last + i]]
        if not allowed:
            raise _Refusal
        self.index = allowed[0]
        page = self._leaf_bits(last, self.shape.page)
        blocks = [_NEVER] * self.depths
        for depth in range(last):
            self._rights(depth, self.shape.block)
            if self.lut[LUT_ROW * depth + self.index]:
                blocks[depth] = self._leaf_bits(depth, self.shape.block)
        table = self._tables(self.shape.leaf(self.shape.page, self.index))
        return _Learned(self.lut, self._none(), self.group, table, page, blocks)

    def _rights(self, depth: int, base: int) -> None:
        """Fill one row of the lut: which combinations of the rights bits pass, and with what info word."""
        for rights in range(LUT_ROW):
            result = self.ask([*self.usual[:depth], self.shape.leaf(base, rights)])
            if isinstance(result, Translation) and not result.updates and result.pa == self.va & self.low[depth]:
                self.lut[LUT_ROW * depth + rights] = pack_info(result, self.faults)

    def _leaf_bits(self, depth: int, permissive: int) -> _Bits:
        f, learned, base = self.shape.format, _Bits(), self.shape.leaf(permissive, self.index)
        rights = 3 << int(f.low_shift) | int(f.up_mask) << int(f.up_shift)
        usual = self.lut[LUT_ROW * depth + self.index]
        for number in range(64):
            bit = 1 << number
            if bit & rights:
                continue
            if int(f.modifier_mask) and number == int(f.modifier_shift):
                self._modifier(depth, permissive, learned)
                continue
            leaf = base ^ bit
            result = self.ask([*self.usual[:depth], leaf])
            if bit & int(f.contiguous) and isinstance(result, Translation):
                self.group[depth] = self._low_bits(result.pa)
                if self.group[depth] < 0:
                    self.group[depth] = self.low[depth]
                    learned.must(bit, base)
                continue
            low = self.low[depth]
            same = isinstance(result, Translation) and result.pa == self.shape.address(leaf) & ~low | self.va & low
            if not same or self.info(result) != usual:
                learned.must(bit, base)
            elif result.updates:
                self._update(learned, bit, base, leaf, result.updates)
        return learned

    def _low_bits(self, pa: int) -> int:
        """The mask of low bits that `pa` has from the address walked, -1 where it is not made that way."""
        masks = [(1 << n) - 1 for n in range(12, 52)]
        return next((mask for mask in masks if pa == self.va & mask), -1)

    def _modifier(self, depth: int, permissive: int, learned: _Bits) -> None:
        """The bit (DBM) that may lift the read-only bit, and what a write then changes."""
        f = self.shape.format
        bit, lifted = 1 << int(f.modifier_shift), 1 << int(f.modified_shift)
        rights = self.index & ~2
        writable, read_only = (self.lut[LUT_ROW * depth + i] for i in (rights, rights | 2))
        leaf = self.shape.leaf(permissive, rights)
        with_write = self.ask([*self.usual[:depth], leaf ^ bit])
        without = self.ask([*self.usual[:depth], (leaf | lifted) ^ bit])
        if self.info(with_write) != writable or (isinstance(with_write, Translation) and with_write.updates):
            learned.must(bit, permissive)
        elif self.info(without) == writable:
            learned.modifier = 1
            if isinstance(without, Translation) and without.updates:
                self._update(learned, lifted, leaf, (leaf | lifted) ^ bit, without.updates)
        elif self.info(without) != read_only:
            learned.must(bit, permissive)

    def _update(
        self, learned: _Bits, bit: int, base: int, entry: int, updates: tuple[tuple[int, int, int], ...]
    ) -> None:
        """Note an entry bit whose unusual value makes the walk write back, if it writes nothing but that entry."""
        flip = int(self.shape.format.leaf_flip)
        if len(updates) != 1 or updates[0][1] != entry or (base ^ flip) & bit:
            learned.must(bit, base)
            return
        _, old, new = updates[0]
        learned.need |= bit
        learned.set |= new & ~old
        learned.clear |= old & ~new

    def _tables(self, leaf: int) -> _Bits:
        """Flip the bits of every table on the way; a bit that acts differently by level has to keep its value."""
        seen = [self._table_bits(depth, leaf) for depth in range(self.depths - 1)]
        joined = _Bits()
        for number in range(64):
            bit = 1 << number
            kinds = {(bool(b.mask & bit), bool(b.need & bit), bool(b.fold & bit)) for b in seen}
            if kinds == {(False, True, False)}:
                joined.need |= bit
            elif kinds == {(False, False, True)}:
                joined.fold |= bit
            elif kinds != {(False, False, False)}:
                joined.must(bit, self.shape.table)
        joined.set = joined.need
        return joined

    def _table_bits(self, depth: int, leaf: int) -> _Bits:
        f, learned, base = self.shape.format, _Bits(), self.usual[depth]
        usual = self.lut[LUT_ROW * (self.depths - 1) + self.index]
        places = {1 << int(f.table_low_shift) + i: 1 << i for i in range(2)}
        places |= {1 << int(f.table_up_shift) + i: 4 << i for i in range(2) if int(f.up_mask) >> i & 1}
        for number in range(64):
            bit = 1 << number
            tables = list(self.usual)
            tables[depth] ^= bit
            if bit in places:
                self._fold(learned, bit, base, tables, places[bit])
                continue
            result = self.ask([*tables, leaf])
            if isinstance(result, Fault) or result.pa != self.va & self.low[-1] or self.info(result) != usual:
                learned.must(bit, base)
            elif result.updates:
                (_, old, new), *more = result.updates
                if more or old != tables[depth] or new != old ^ bit or (base ^ int(f.table_flip)) & bit or ~new & bit:
                    learned.must(bit, base)
                else:
                    learned.need |= bit
        return learned

    def _fold(self, learned: _Bits, bit: int, base: int, tables: Sequence[int], place: int) -> None:
        """Whether a table's bit counts like the leaf's at the same place of the rights index, or not at all."""
        row = self.lut[-LUT_ROW:]
        acts, idle = True, True
        for i in (i for i in range(LUT_ROW) if not i & place and row[i] != row[i | place]):
            result = self.ask([*tables, self.shape.leaf(self.shape.page, i)])
            refused = isinstance(result, Fault) and result.level == self.tree.levels[-1].number
            clean = refused or (isinstance(result, Translation) and not result.updates)
            acts = acts and clean and self.info(result) == row[i | place]
            idle = idle and clean and self.info(result) == row[i]
        if acts:
            learned.fold |= bit
        elif not idle:
            learned.must(bit, base)

    def _none(self) -> list[int]:
        """The info words of not-present entries by depth; they may not depend on the rest of the entry."""
        infos: list[int] = []
        for depth in range(self.depths):
            words = {self._fault([*self.usual[:depth], raw]) for raw in (0, ALL - 1, 0x5555_5555_5555_5554)}
            if len(words) != 1:
                raise _Refusal
            infos += words
        return infos

    def _fault(self, raws: Sequence[int], va: int | None = None) -> int:
        result = self.ask(raws, va)
        if isinstance(result, Translation):
            raise _Refusal
        return pack_info(result, self.faults)

    def bounds(self) -> tuple[int, int]:
        """(address bits that have to agree with the half's bit, the info word where they do not)."""
        half_bit, outside, infos = int(self.shape.format.half_bit), 0, set[int]()
        raws = [*self.usual, self.shape.leaf(self.shape.page, self.index)]
        for number in range(64):
            va = self.va ^ 1 << number
            if number == half_bit or va in self.tree:
                continue
            result = self.ask(raws, va)
            if isinstance(result, Fault):
                outside |= 1 << number
                infos.add(pack_info(result, self.faults))
            elif result.pa != self.va & self.low[-1] or self.info(result) != self.lut[-LUT_ROW + self.index]:
                raise _Refusal
        if len(infos) > 1:
            raise _Refusal
        return outside, infos.pop() if infos else 0


@dataclass(frozen=True)
class _Half:
    root: int
    inside: int
    outside: int
    range_info: int


def _half(pupil: _Pupil) -> _Half:
    outside, info = pupil.bounds()
    top = pupil.tree.levels[0]
    return _Half(pupil.tree.root, (1 << top.shift + top.index_bits) - 1, outside, info)


_CLOSED = _Half(UNBACKED, 0, 0, 0)


def plan_for(regime: Regime, access: Access, faults: Sequence[str], *, update: bool) -> tuple[Format, Plan] | None:
    """The format and plan of a regime for one kind of access, or None where only the full rules will do.

    `faults` names the fault kinds. Takes some hundreds of reference walks.
    """
    trees = [tree for tree in regime.trees if tree.entry_size == 8 and 2 <= len(tree.levels) <= MAX_DEPTH]
    learned: _Learned | None = None
    halves = [_CLOSED, _CLOSED]
    shape: Shape | None = None
    for tree in trees:
        try:
            candidate = shape_of(regime, tree.levels)
            pupil = _Pupil(regime, tree, shape or candidate, access, faults)
            lesson = pupil.learn()
            if shape is not None and (candidate, lesson) != (shape, learned):
                continue
            halves[tree.va_start >> int(candidate.format.half_bit) & 1] = _half(pupil)
            shape, learned = candidate, lesson
        except (_Refusal, KeyError):
            continue
    if shape is None or learned is None:
        return None
    widths = {half.inside for half in halves if half is not _CLOSED}
    bounds = {half.outside for half in halves}
    inside, outside = (U64(values.pop() if len(values) == 1 else 0) for values in (widths, bounds))
    return shape.format._replace(inside=inside, outside=outside), _build(learned, halves, update)


def _acts_alike(a: _Bits, b: _Bits) -> bool:
    return (a.need, a.set, a.clear, a.modifier) == (b.need, b.set, b.clear, b.modifier)


def _build(learned: _Learned, halves: Sequence[_Half], update: bool) -> Plan:
    page = learned.page
    blocks = [*(b if _acts_alike(b, page) else _NEVER for b in learned.blocks[:-1]), page]
    lower, upper = halves
    arrays = {
        "range_info": [lower.range_info, upper.range_info],
        "none_info": learned.none_info,
        "lut": learned.lut,
        "block_mask": [b.mask for b in blocks],
        "block_value": [b.value for b in blocks],
        "group": learned.group,
    }
    scalars = {
        "root": lower.root, "root_up": upper.root, "inside": lower.inside, "inside_up": upper.inside,
        "outside": lower.outside, "outside_up": upper.outside, "table_mask": learned.table.mask,
        "table_value": learned.table.value, "page_mask": page.mask, "page_value": page.value,
        "fold": learned.table.fold | learned.table.need, "need_leaf": page.need if update else 0,
        "need_table": learned.table.need if update else 0, "modifier": page.modifier, "set_leaf": page.set,
        "clear_leaf": page.clear, "set_table": learned.table.set,
    }  # fmt: skip
    keep = [np.array(values, np.uint64) for values in arrays.values()]
    fields: dict[str, Any] = dict(zip(arrays, (U64(host_address(a)) for a in keep), strict=True))
    plan = Plan(**fields, **{name: U64(value) for name, value in scalars.items()})
    plan.keep = keep
    return plan
