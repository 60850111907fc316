"""Questions about whole address spaces: filters, differences between two, and lint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .arch.errors import InputError
from .mmu.memory import Memory
from .mmu.progress import tracked
from .mmu.regime import EntryType, Regime
from .mmu.spaces import MAX_TABLES, Broken, Leaf, SpaceLimitError, leaves, read_entries
from .mmu.walk import Access, AccessKind, Rights, Translation, outcome

NO_RIGHTS = Rights(0)
_TYPE_FIELDS = ("PAT", "PCD", "PWT", "AttrIndx")  # what selects the memory type, x86 and arm64


@dataclass(frozen=True, slots=True)
class Filter:
    """Which leaves to keep: all given conditions hold.

    `rights` must all be granted, `without` must not be; `size` is the page size in bytes; `pa` and `va` are half-open
    ranges that the leaf overlaps.
    """

    rights: Rights = NO_RIGHTS
    without: Rights = NO_RIGHTS
    size: int | None = None
    pa: tuple[int, int] | None = None
    va: tuple[int, int] | None = None

    def __call__(self, leaf: Leaf) -> bool:
        return (
            leaf.rights & self.rights == self.rights
            and not leaf.rights & self.without
            and (self.size is None or leaf.size == self.size)
            and (self.pa is None or _overlap(leaf.pa, leaf.size, self.pa))
            and (self.va is None or _overlap(leaf.va, leaf.size, self.va))
        )


def _overlap(start: int, size: int, wanted: tuple[int, int]) -> bool:
    return start < wanted[1] and wanted[0] < start + size


@dataclass(frozen=True, slots=True)
class Change:
    """What differs at `size` bytes from `va`: the leaf before and after, None where nothing was mapped."""

    va: int
    size: int
    before: Leaf | None
    after: Leaf | None

    def text(self) -> str:
        """`+`, `-` or `~`, the range, and what changed."""
        where = f"{self.va:#018x}-{self.va + self.size:#018x}"
        if self.before is None and self.after is not None:
            return f"+ {where} {_leaf(self.after, self.va)}"
        if self.after is None and self.before is not None:
            return f"- {where} {_leaf(self.before, self.va)}"
        sides = [_leaf(leaf, self.va) for leaf in (self.before, self.after) if leaf is not None]
        return f"~ {where} {' -> '.join(sides)}"


def _leaf(leaf: Leaf, va: int) -> str:
    pa = leaf.pa + va - leaf.va
    return f"{pa:#018x} {leaf.rights.text()} {leaf.layout.flags(leaf.flags)}"


def diff(before: Iterable[Leaf], after: Iterable[Leaf]) -> Iterator[Change]:
    """What is mapped differently in two spaces, page sizes and accessed/dirty bits aside, ascending, runs joined."""
    now: Change | None = None
    for change in _cut(before, after):
        if now is not None and _joins(now, change):
            now = Change(now.va, now.size + change.size, now.before, now.after)
            continue
        if now is not None:
            yield now
        now = change
    if now is not None:
        yield now


def _cut(before: Iterable[Leaf], after: Iterable[Leaf]) -> Iterator[Change]:
    """The two ascending lists of leaves, cut at each other's borders; only pieces that differ."""
    sides = [iter(before), iter(after)]
    heads: list[Leaf | None] = [next(side, None) for side in sides]
    at = 0
    while any(heads):
        starts = [max(at, leaf.va) for leaf in heads if leaf is not None]
        at = min(starts)
        here = [leaf if leaf is not None and leaf.va <= at else None for leaf in heads]
        ends = [leaf.va + leaf.size if leaf in here else leaf.va for leaf in heads if leaf is not None]
        end = min(ends)
        if _differs(here[0], here[1], at):
            yield Change(at, end - at, here[0], here[1])
        at = end
        for i, leaf in enumerate(heads):
            if leaf is not None and leaf.va + leaf.size <= at:
                heads[i] = next(sides[i], None)


def _differs(one: Leaf | None, other: Leaf | None, at: int) -> bool:
    if one is None or other is None:
        return one is not other
    if (one.pa + at - one.va, one.rights) != (other.pa + at - other.va, other.rights):
        return True
    if one.layout is other.layout:
        return one.flags != other.flags
    shared = one.layout.keys() & other.layout.keys()  # of pages of two sizes: what both say of the memory
    return any(one.layout[n].get(one.flags) != other.layout[n].get(other.flags) for n in shared)


def _joins(now: Change, new: Change) -> bool:
    if now.va + now.size != new.va:
        return False
    for a, b in ((now.before, new.before), (now.after, new.after)):
        if (a is None) != (b is None):
            return False
        if a is not None and b is not None:
            same = (a.rights, a.flags, a.layout) == (b.rights, b.flags, b.layout)
            if not same or a.pa + now.va - a.va + now.size != b.pa + new.va - b.va:
                return False
    return True


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that lint found: `rule` is its name, `va` where, `text` one sentence."""

    rule: str
    va: int
    text: str


def lint(memory: Memory, regime: Regime) -> list[Finding]:
    """Entries that lead nowhere, pages writable and executable at once, contiguous sets that break their rule, memory
    reached through different memory types."""
    broken: list[Broken] = []
    found = list(tracked(leaves(memory, regime, report=broken.append), "leaves read", every=4096))
    findings = [
        Finding(
            "dead-entry", b.va, f"the {b.level.name} at {b.entry_pa:#018x} => {b.entry:#x} leads nowhere: {b.reason}"
        )
        for b in broken
    ]
    for rule in (_writable_and_executable, _contiguous_sets, _aliases):
        findings += rule(found, memory, regime)
    return findings


def _writable_and_executable(found: list[Leaf], memory: Memory, regime: Regime) -> Iterator[Finding]:
    for who, both in (("kernel", Rights.KW | Rights.KX), ("user", Rights.UW | Rights.UX)):
        for start, size in _runs(found, Filter(rights=both)):
            yield Finding("w+x", start, f"{size:#x} bytes are writable and executable for the {who} at once")


def _runs(found: list[Leaf], wanted: Callable[[Leaf], bool]) -> Iterator[tuple[int, int]]:
    start = end = None
    for leaf in filter(wanted, found):
        if end != leaf.va:
            if start is not None and end is not None:
                yield start, end - start
            start = leaf.va
        end = leaf.va + leaf.size
    if start is not None and end is not None:
        yield start, end - start


def _contiguous_sets(found: list[Leaf], memory: Memory, regime: Regime) -> Iterator[Finding]:
    """arm64: all entries of a contiguous set carry the bit and map one aligned, unbroken run (Arm ARM D8.7.1)."""
    from .mmu.arm64.regime import Arm64Regime

    if not isinstance(regime, Arm64Regime):
        return
    by_set: dict[tuple[int, int], list[Leaf]] = {}
    for leaf in found:
        if (count := regime.contiguous_entries(leaf.level, leaf.entry)) > 1:
            size = count * leaf.size
            by_set.setdefault((leaf.va // size * size, size), []).append(leaf)
    for (va, size), members in by_set.items():
        if len(members) * members[0].size != size:
            text = f"{len(members)} of {size // members[0].size} entries of a contiguous set carry the Contiguous bit"
            yield Finding("contiguous-incomplete", va, text)
        elif any(m.pa != members[0].pa + m.va - va for m in members) or members[0].pa % size:
            yield Finding("contiguous-broken", va, "the entries of a contiguous set map no aligned, unbroken run")


def _aliases(found: list[Leaf], memory: Memory, regime: Regime) -> Iterator[Finding]:
    """Memory reached with different memory types (Intel SDM volume 3A 13.12.4; Arm ARM B2.16), by pages of any sizes.

    A page that no read can reach, such as one without the Access flag, has no type and is no alias.
    """
    types: dict[tuple[int, ...], str] = {}

    def memory_type(leaf: Leaf) -> str | None:
        key = tuple(leaf.layout[n].get(leaf.entry) for n in _TYPE_FIELDS if n in leaf.layout)
        if key not in types:
            access = Access(AccessKind.READ, user=bool(leaf.rights & Rights.UR))
            end = outcome(regime.walk(memory, leaf.va, access))
            if not isinstance(end, Translation):
                return None
            types[key] = str(end.attributes["memory type"])
        return types[key]

    furthest: dict[str, Leaf] = {}  # by memory type: of the pages so far the one that ends last
    clashes: dict[int, dict[str, int]] = {}
    for leaf in sorted(found, key=lambda leaf: leaf.pa):
        if (kind := memory_type(leaf)) is None:
            continue
        for other, page in furthest.items():
            if other != kind and page.pa + page.size > leaf.pa:
                clash = clashes.setdefault(leaf.pa, {})
                clash.setdefault(other, page.va + leaf.pa - page.pa)
                clash.setdefault(kind, leaf.va)
        if kind not in furthest or furthest[kind].pa + furthest[kind].size < leaf.pa + leaf.size:
            furthest[kind] = leaf
    for pa, kinds in clashes.items():
        where = ", ".join(f"{kind} at {va:#018x}" for kind, va in kinds.items())
        yield Finding("alias", min(kinds.values()), f"memory at {pa:#018x} is mapped with several types: {where}")


def break_before_make(before: tuple[Memory, Regime], after: tuple[Memory, Regime]) -> list[Finding]:
    """arm64: entries of one space at two moments that may not have been overwritten while they were live (D8.16.1).

    Each must have been invalid in between; whether it was, two moments cannot tell. Tables are followed where both
    moments have one. InputError for another architecture or differently shaped spaces.
    """
    from .mmu.arm64.regime import Arm64Regime
    from .mmu.hardware_entries import entries_for

    (old_memory, old), (new_memory, new) = before, after
    if not (isinstance(old, Arm64Regime) and isinstance(new, Arm64Regime)):
        raise InputError("break-before-make is a rule of arm64", field="arch", value=new.arch)
    trees = list(zip(old.trees, new.trees, strict=False))
    if len(old.trees) != len(new.trees) or any(a.levels != b.levels for a, b in trees):
        raise InputError("the two spaces are not of the same shape", field="levels")
    entries, findings = entries_for(new), []
    stack = [(0, a.va_start, a.root, b.root, a) for a, b in reversed(trees)]
    read = 0
    while stack:
        depth, start, one, two, tree = stack.pop()
        level, read = tree.levels[depth], read + 1
        if read > MAX_TABLES:
            raise SpaceLimitError(start, read - 1)
        pair = [read_entries(memory, pa, level.entries, 8) for memory, pa in ((old_memory, one), (new_memory, two))]
        for index, (was, now) in enumerate(zip(*pair, strict=True)):
            va = start + (index << level.shift)
            if not was or not now:
                continue
            reason = entries.needs_break(level, was, now)
            if reason:
                text = f"{level.name} {was:#x} -> {now:#x}: {reason}; it must have been invalid in between"
                findings.append(Finding("break-before-make", va, text))
            kinds = [regime.classify(level, raw) for regime, raw in ((old, was), (new, now))]
            if all(kind.type is EntryType.TABLE for kind in kinds):
                stack.append((depth + 1, va, kinds[0].pa, kinds[1].pa, tree))
    return findings
