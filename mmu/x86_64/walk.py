"""The reference walker of x86: the executable statement of Intel SDM volume 3A 5.3 to 5.8.

The order is: linear-address checks (LAM, canonical, LASS); at each level P, then reserved bits, and the first level
that fails decides; at the leaf the protection rules of `rules` over the whole path; then accessed and dirty bits.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace

from ...arch.layout import Layout
from ...arch.x86_64 import entries
from ...arch.x86_64.registers import MEMORY_TYPES, PAT
from ..memory import Memory
from ..regime import EntryType
from ..walk import Fault, Level, Step, Translation, Walk
from . import linear, rules
from .access import X86Access
from .modes import PAE
from .regime import X86Regime
from .rules import SDM, Path

_A, _D = entries.PTE["A"].mask, entries.PTE["D"].mask


@dataclass(slots=True)
class Used:
    """The entries that one walk used: address, value, level; kept for accessed and dirty bits."""

    entries: list[tuple[int, int, Level]] = field(default_factory=list)

    def updates(self, regime: X86Regime, *, write: bool) -> list[tuple[int, int, int]]:
        """A in every entry used, D in the leaf of a write; PAE's PDPTEs have neither (Intel SDM volume 3A 5.8)."""
        result = []
        for i, (pa, raw, level) in enumerate(self.entries):
            if regime.mode is PAE and level.number == 3:
                continue
            new = raw | _A | (_D if write and i == len(self.entries) - 1 else 0)
            if new != raw:
                result.append((pa, raw, new))
        return result


@dataclass(frozen=True, slots=True)
class Reached:
    """The leaf that a walk reached, before its rights are judged."""

    level: Level
    pa: int
    raw: int
    layout: Layout
    path: Path
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class X86Fault(Fault):
    """A page fault; `causes` names every rule that forbade the access (`P`, `RSVD` or the names of `rules.RULES`)."""

    causes: tuple[str, ...] = ()


def walk(regime: X86Regime, memory: Memory, va: int, access: X86Access, *, update: bool = False) -> Walk:
    """Walk one linear address, a step an entry, to a `Translation` or a `Fault`."""
    va, refusal = linear.check(regime, va, access)
    if refusal is not None:
        yield Step(rule=refusal.rule, note="no table is read", source=refusal.source)
        return refusal
    used = Used()
    end = yield from descend(regime, memory, va, access, used)
    if isinstance(end, Fault):
        return end
    if forbidden := judge(regime, va, access, end):
        return forbidden
    updates = tuple(used.updates(regime, write=access.is_write))
    if update:
        for pa, _, new in updates:
            memory.write_uint(pa, new, regime.mode.entry_size)
    return translation(regime, va, end, updates)


def descend(
    regime: X86Regime, memory: Memory, va: int, access: X86Access, used: Used
) -> Generator[Step, None, Reached | Fault]:
    """From the root to a leaf, or to the first entry that is not present or has a reserved bit set."""
    table, path = regime.root, Path()
    for level in regime.levels:
        pa = table + level.index(va) * regime.mode.entry_size
        raw = memory.read_uint(pa, regime.mode.entry_size)
        entry = regime.classify(level, raw)
        if entry.type is EntryType.NONE:
            yield step(regime, level, pa, raw, path, "present", "not present")
            return absent(regime, va, access, level, pa, raw)
        if entry.type is EntryType.RESERVED:
            wrong = regime.reserved(level, raw)
            yield step(regime, level, pa, raw, path, "reserved bits", f"reserved bits set: {wrong:#x}")
            return reserved(regime, va, access, level, pa, raw)
        if not (regime.mode is PAE and level.number == 3):  # PDPTEs of PAE carry no rights
            path = path.down(raw, entry.layout)
        used.entries.append((pa, raw, level))
        leaf = entry.type is EntryType.LEAF
        yield step(regime, level, pa, raw, path, "translation", "leaf" if leaf else "table")
        if leaf:
            offset = va & (1 << level.shift) - 1
            return Reached(level, pa, raw, entry.layout, path, entry.pa | offset)
        table = entry.pa
    raise AssertionError("the last level of every mode holds leaves")


def judge(regime: X86Regime, va: int, access: X86Access, leaf: Reached) -> X86Fault | None:
    """The fault that the protection rules raise on a leaf, or None."""
    failed = rules.violations(regime, access, leaf.path)
    if not failed:
        return None
    key = any(rule.name in ("PKU", "PKS") for rule in failed)
    code = rules.error_code(regime, access, present=True, key=key)
    first, rest = failed[0], failed[1:]
    fault = _page_fault(va, code, leaf.level, leaf.pa, leaf.raw, first.text, first.bit, first.source)
    also = tuple(f"{rule.name}: {rule.text}" for rule in rest)
    return replace(fault, also=also, causes=tuple(rule.name for rule in failed))


def translation(regime: X86Regime, va: int, leaf: Reached, updates: tuple[tuple[int, int, int], ...]) -> Translation:
    """The successful end of a walk."""
    return Translation(
        va=va, pa=leaf.target, level=leaf.level.number, page_shift=leaf.level.shift,
        rights=rules.rights(regime, leaf.path), entry_pa=leaf.pa, entry=leaf.raw, updates=updates,
        attributes=attributes(regime, leaf),
    )  # fmt: skip


def attributes(regime: X86Regime, leaf: Reached) -> dict[str, object]:
    """The memory type by PAT, PCD and PWT (Intel SDM volume 3A 13.12.3), global, and the protection key."""
    bit = {name: leaf.layout[name].get(leaf.raw) for name in ("PWT", "PCD", "PAT")}
    index = bit["PAT"] << 2 | bit["PCD"] << 1 | bit["PWT"]
    kind = MEMORY_TYPES.get(PAT[f"PA{index}"].get(regime.registers["IA32_PAT"]), "reserved")
    is_global = bool(leaf.layout["G"].get(leaf.raw)) and "PGE" in regime.on
    result: dict[str, object] = {"memory type": kind, "PAT index": index, "global": is_global}
    if regime.on & {"PKE", "PKS"} and "PK" in leaf.layout:
        result["key"] = leaf.path.key
    return result


def step(regime: X86Regime, level: Level, pa: int, raw: int, path: Path, rule: str, note: str) -> Step:
    """One entry read; the rights are those of the path so far."""
    return Step(
        rule=rule, note=note, level=level.number, name=level.name, linux_name=level.linux_name, pa=pa, raw=raw,
        kind=regime.layout(level, raw), rights=rules.rights(regime, path), source=f"{SDM} {regime.mode.section}",
    )  # fmt: skip


def absent(regime: X86Regime, va: int, access: X86Access, level: Level, pa: int, raw: int) -> X86Fault:
    """P is 0: a page fault whose error code has P=0."""
    code = rules.error_code(regime, access, present=False)
    fault = _page_fault(va, code, level, pa, raw, "the entry is not present", "P", f"{SDM} 5.7")
    return replace(fault, causes=("P",))


def reserved(regime: X86Regime, va: int, access: X86Access, level: Level, pa: int, raw: int) -> X86Fault:
    """A reserved bit is set in a present entry: a page fault with P=1 and RSVD=1."""
    code = rules.error_code(regime, access, present=True, reserved=True)
    layout, wrong = regime.layout(level, raw), regime.reserved(level, raw)
    names = " ".join(f.name for f in layout.values() if f.mask & wrong)
    text = f"reserved bits are set ({wrong:#x})"
    fault = _page_fault(va, code, level, pa, raw, text, names, f"{SDM} 5.7")
    return replace(fault, causes=("RSVD",))


def _page_fault(va: int, code: int, level: Level, pa: int, raw: int, rule: str, bit: str, source: str) -> X86Fault:
    return X86Fault(
        va=va, name="#PF", code=code, rule=rule, level=level.number, entry_pa=pa, entry=raw, bit=bit, source=source,
        syndrome={"CR2": va},
    )  # fmt: skip
