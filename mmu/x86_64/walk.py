"""The reference walker of x86: the executable statement of Intel SDM volume 3A 5.3 to 5.8.

The order is: linear-address checks (LAM, canonical, LASS); at each level P, then reserved bits, and the first level
that fails decides; at the leaf the protection rules of `rules` over the whole path; the second stage for the final
address; then accessed and dirty bits, by compare-and-exchange. An entry that changed meanwhile restarts the walk.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Protocol

from ...arch.errors import PtwalkError
from ...arch.layout import RES0, Layout
from ...arch.x86_64 import entries
from ...arch.x86_64.faults import PF_ERROR_CODE
from ...arch.x86_64.registers import MEMORY_TYPES, PAT
from ..memory import Memory
from ..regime import EntryType
from ..walk import ALL_RIGHTS, Fault, Level, Outcome, Step, Translation, Walk
from . import linear, rules
from .access import X86Access
from .modes import OFF, PAE
from .profiles import NONE
from .regime import X86Regime
from .rules import SDM, Path
from .words import Words

A, D, _R = (entries.PTE[name].mask for name in ("A", "D", "R"))
_PATH_BITS = {"US": (rules.US, 0), "RW": (rules.RW, 0), "XD": (rules.XD, rules.XD)}
RESTARTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class X86Fault(Fault):
    """A page fault; `causes` names every rule that forbade the access (`P`, `RSVD` or the names of `rules.RULES`).

    `allowed` holds every error code that the architecture permits here, `code` first.
    """

    causes: tuple[str, ...] = ()
    allowed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reached:
    """The leaf that a walk reached, before its rights are judged; `hlat` where HLAT paging led there."""

    level: Level
    pa: int
    raw: int
    layout: Layout
    path: Path
    target: int
    hlat: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What a guest's walk asks of the second stage: translate `gpa` for a table access or for the final one.

    `update` marks the write of accessed and dirty bits, `plain` the load of a PAE PDPTE, which sets none. `leaf` is
    what the guest's walk reached (final accesses). `tables` is the second stage's note on each table of this walk.
    """

    va: int
    gpa: int
    access: X86Access
    table: bool
    update: bool = False
    plain: bool = False
    leaf: Reached | None = None
    tables: list[bool] = field(default_factory=list)


class SecondStage(Protocol):
    """Nested paging: walks a guest-physical address to `Reached` (its `target` is system-physical) or to a fault."""

    def translate(self, ram: Words, request: Request) -> Generator[Step, None, Reached | Fault]: ...

    def attributes(self, leaf: Reached) -> dict[str, object]:
        """What a leaf of the second stage says besides the address."""
        ...

    @property
    def asks_for_updates(self) -> bool:
        """Whether writing accessed and dirty bits into guest tables is an access of its own."""
        ...


@dataclass(slots=True)
class Walker:
    """One walk in progress: `used` are the entries to get accessed bits, as (pa, gpa, level)."""

    regime: X86Regime
    ram: Words
    access: X86Access
    second: SecondStage | None = None
    used: list[tuple[int, int, Level]] = field(default_factory=list)
    tables: list[bool] = field(default_factory=list)

    def run(self, va: int) -> Walk:
        """From a checked linear address to the outcome; nothing is stored."""
        if self.second is not None and self.regime.mode is OFF:
            return (yield from self._unpaged(self.second, va))
        root, hlat = self.regime.root, self.regime.uses_hlat(va)
        end = yield from self.descend(va, self.regime.hlat_root or 0 if hlat else root, hlat=hlat)
        if end is None:
            self.used.clear()
            self.tables.clear()
            end = yield from self.descend(va, root, hlat=False)
        if end is None:
            raise AssertionError("ordinary paging does not restart")
        if isinstance(end, X86Fault):
            return self._blamed(end, judged=False)
        if isinstance(end, Fault):
            return end
        if forbidden := judge(self.regime, va, self.access, end):
            return self._blamed(replace(forbidden, bit=self._culprit(forbidden.bit)), judged=True)
        final: Reached | None = None
        if self.second is not None:
            through = yield from self._second_stage(self.second, va, end)
            if isinstance(through, Fault):
                return through
            final = through
        for i, (pa, _, level) in enumerate(self.used):
            leaf = i == len(self.used) - 1
            self._mark(pa, level, A | (D if leaf and self.access.is_write else 0))
        told = attributes(self.regime, end)
        if final is not None and self.second is not None:
            told |= {"gpa": end.target, **self.second.attributes(final)}
        return translation(self.regime, va, end, final or end, self.ram.updates(), told)

    def _unpaged(self, second: SecondStage, va: int) -> Walk:
        """A guest without paging: its linear addresses are guest-physical ones."""
        final = yield from second.translate(self.ram, Request(va, va, self.access, table=False))
        if isinstance(final, Fault):
            return final
        shift, updates = final.level.shift, self.ram.updates()
        told = {"gpa": va, **second.attributes(final)}
        return Translation(
            va=va, pa=final.target, level=None, page_shift=shift, rights=ALL_RIGHTS, updates=updates, attributes=told
        )

    def descend(self, va: int, root: int, *, hlat: bool) -> Generator[Step, None, Reached | Fault | None]:
        """From a root to a leaf or to the first bad entry; None where HLAT paging sends us to ordinary paging."""
        regime, size = self.regime, self.regime.mode.entry_size
        table, path = root, Path()
        for level in regime.levels:
            pa = gpa = table + level.index(va) * size
            if self.second is not None:
                at = yield from self.second.translate(self.ram, self._request(va, gpa, level))
                if isinstance(at, Fault):
                    return at
                pa = at.target
            raw = self.ram.read(pa, size)
            entry = regime.classify(level, raw)
            if entry.type in (EntryType.NONE, EntryType.RESERVED):
                yield step(regime, level, pa, raw, path, _NOTES[entry.type])
                if self._marks_first(level, raw):
                    self.used.append((pa, gpa, level))
                nested = self.second is not None
                return bad_entry(regime, va, self.access, level, pa, raw, path, hlat=hlat, nested=nested)
            if hlat and raw & _R:
                yield step(regime, level, pa, raw, path, "HLAT: R is set, ordinary paging from CR3")
                return None
            leaf = entry.type is EntryType.LEAF
            if not (regime.mode is PAE and level.number == 3):  # PDPTEs of PAE carry no rights
                path = path.down(raw, entry.layout)
            self.used.append((pa, gpa, level))
            yield step(regime, level, pa, raw, path, "leaf" if leaf else "table")
            if leaf:
                offset = va & (1 << level.shift) - 1
                return Reached(level, pa, raw, entry.layout, path, entry.pa | offset, hlat)
            table = entry.pa
        raise AssertionError("the last level of every mode holds leaves")

    def _request(self, va: int, gpa: int, level: Level) -> Request:
        plain = self.regime.mode is PAE and level.number == 3
        return Request(va, gpa, self.access, table=True, plain=plain, tables=self.tables)

    def _second_stage(self, second: SecondStage, va: int, leaf: Reached) -> Generator[Step, None, Reached | Fault]:
        """The final address through the second stage, and its leave to write the guest's accessed and dirty bits."""
        request = Request(va, leaf.target, self.access, table=False, leaf=leaf, tables=self.tables)
        final = yield from second.translate(self.ram, request)
        if isinstance(final, Fault) or not second.asks_for_updates:
            return final
        for i, (pa, gpa, level) in enumerate(self.used):
            wanted = A | (D if i == len(self.used) - 1 and self.access.is_write else 0)
            if wanted & ~self.ram.read(pa, self.regime.mode.entry_size) and not self._has_no_flags(level):
                at = yield from second.translate(self.ram, Request(va, gpa, self.access, table=True, update=True))
                if isinstance(at, Fault):
                    return at
        return final

    def _has_no_flags(self, level: Level) -> bool:
        """PAE's PDPTEs have neither A nor D (Intel SDM volume 3A 5.8)."""
        return self.regime.mode is PAE and level.number == 3 and not self.regime.profile.pdpte_accessed

    def _marks_first(self, level: Level, raw: int) -> bool:
        """Whether the profile sets A in a 1-GByte leaf before it looks at the reserved bits below its address."""
        if not self.regime.profile.pdpte_a_first or level.number != 3 or not self.regime.is_leaf(level, raw):
            return False
        others = self.regime.reserved(level, raw) & ~entries.PDPTE_1G.role_mask(RES0)
        return bool(raw & entries.PTE["P"].mask) and not others

    def _mark(self, pa: int, level: Level, bits: int) -> None:
        if not self._has_no_flags(level):
            self.ram.change(pa, self.regime.mode.entry_size, bits)

    def _culprit(self, bit: str) -> str:
        """The bit to blame, and the entry where that is not the leaf: the first that lacks R/W or U/S or has XD."""
        if bit not in _PATH_BITS:
            return bit
        mask, wrong = _PATH_BITS[bit]
        for pa, _, level in self.used[:-1]:
            raw = self.ram.read(pa, self.regime.mode.entry_size)
            if not (self.regime.mode is PAE and level.number == 3) and raw & mask == wrong:
                return f"{bit} of the {level.name} at {pa:#018x}"
        return bit

    def _blamed(self, fault: Fault, *, judged: bool) -> Fault:
        """A fault with the accessed bits that the profile sets nevertheless."""
        behaviour = self.regime.profile
        if behaviour.a_on_fault == NONE:
            return fault
        leaf_too = not judged or (behaviour.pdpte_a_first and self.used[-1][2].number == 3)
        for pa, _, level in self.used if leaf_too else self.used[:-1]:
            self._mark(pa, level, A)
        return replace(fault, updates=self.ram.updates())


_NOTES = {EntryType.NONE: "not present", EntryType.RESERVED: "reserved bits set"}


def walk(
    regime: X86Regime, memory: Memory, va: int, access: X86Access, *, update: bool = False,
    second: SecondStage | None = None,
) -> Walk:  # fmt: skip
    """Walk one linear address, a step an entry, to a `Translation` or a `Fault`."""
    va, refusal = linear.check(regime, va, access)
    if refusal is not None:
        yield Step(rule=refusal.rule, note="no table is read", source=refusal.source)
        return refusal
    if regime.mode is OFF and second is None:
        yield Step(rule="paging is off", note="the linear address is the physical one", source=f"{SDM} 5.1.1")
        return Translation(va=va, pa=va, level=None, page_shift=32, rights=ALL_RIGHTS)
    if access.rmw and regime.profile.rmw_is_load_then_store:
        first = yield from _until_stored(regime, memory, va, access.load_half, update, second)
        if isinstance(first, Fault):
            return first
    return (yield from _until_stored(regime, memory, va, access, update, second))


def _until_stored(
    regime: X86Regime, memory: Memory, va: int, access: X86Access, update: bool, second: SecondStage | None
) -> Walk:
    """Walk again as long as an entry changed between its reading and its update."""
    for _ in range(RESTARTS):
        ram = Words(memory)
        end: Outcome = yield from Walker(regime, ram, access, second).run(va)
        if not update or not end.updates or ram.commit():
            return end
        yield Step(rule="restart", note="an entry changed since it was read", source=f"{SDM} 5.8")
    raise PtwalkError(f"the entries for {va:#018x} changed {RESTARTS} times under the walk")


def judge(regime: X86Regime, va: int, access: X86Access, leaf: Reached) -> X86Fault | None:
    """The fault that the protection rules raise on a leaf, or None."""
    failed = rules.violations(regime, access, leaf.path)
    if not failed:
        return None
    names = tuple(rule.name for rule in failed)
    key = any(name in rules.KEY_RULES for name in names)
    code = rules.error_code(regime, access, present=True, key=key, hlat=leaf.hlat)
    allowed = [code]
    if "PKS" in names and "U/S" in names:  # the manuals leave open which of the two is tested first
        allowed.append(code & ~PF_ERROR_CODE["PK"].mask)
        if not regime.profile.pkrs_told_to_user:
            allowed.reverse()
    first, rest = failed[0], failed[1:]
    fault = page_fault(va, allowed[0], leaf.level, leaf.pa, leaf.raw, first.text, first.bit, first.source)
    also = tuple(f"{rule.name}: {rule.text}" for rule in rest)
    return replace(fault, also=also, causes=names, allowed=tuple(allowed))


def translation(
    regime: X86Regime, va: int, leaf: Reached, final: Reached, updates: tuple[tuple[int, int, int], ...],
    told: dict[str, object],
) -> Translation:  # fmt: skip
    """The successful end of a walk; under nested paging `final` is where the second stage led."""
    return Translation(
        va=va, pa=final.target, level=leaf.level.number, page_shift=min(leaf.level.shift, final.level.shift),
        rights=rules.rights(regime, leaf.path), entry_pa=leaf.pa, entry=leaf.raw, updates=updates, attributes=told,
    )  # fmt: skip


def attributes(regime: X86Regime, leaf: Reached) -> dict[str, object]:
    """The memory type by PAT, PCD and PWT (Intel SDM volume 3A 13.12.3), global, the key, SEV's and TDX's bit."""
    bit = {name: leaf.layout[name].get(leaf.raw) for name in ("PWT", "PCD", "PAT")}
    index = bit["PAT"] << 2 | bit["PCD"] << 1 | bit["PWT"]
    kind = MEMORY_TYPES.get(PAT[f"PA{index}"].get(regime.registers["IA32_PAT"]), "reserved")
    is_global = bool(leaf.layout["G"].get(leaf.raw)) and "PGE" in regime.on
    told: dict[str, object] = {"memory type": kind, "PAT index": index, "global": is_global}
    if regime.on & {"PKE", "PKS"} and "PK" in leaf.layout:
        told["key"] = leaf.path.key
    if regime.c_bit:
        told["encrypted"] = bool(leaf.raw & regime.c_mask)
    if regime.shared_bit:
        told["shared"] = bool(leaf.raw >> regime.shared_bit & 1)
    return told


def step(regime: X86Regime, level: Level, pa: int, raw: int, path: Path, note: str, stage: int = 1) -> Step:
    """One entry read; the rights are those of the path so far."""
    return Step(
        rule="translation" if note in ("leaf", "table") else note, note=note, stage=stage, level=level.number,
        name=level.name, linux_name=level.linux_name, pa=pa, raw=raw, kind=regime.layout(level, raw),
        rights=rules.rights(regime, path), source=f"{SDM} {regime.mode.section}",
    )  # fmt: skip


def bad_entry(
    regime: X86Regime, va: int, access: X86Access, level: Level, pa: int, raw: int, path: Path, *, hlat: bool = False,
    nested: bool = False,
) -> X86Fault:  # fmt: skip
    """The fault of an entry that is not present (P=0 in the code) or has a reserved bit set (P=1 and RSVD=1)."""
    wrong = regime.reserved(level, raw) if raw & entries.PTE["P"].mask else 0
    present = bool(wrong) and regime.profile.reserved_sets_p
    code = rules.error_code(regime, access, present=present, reserved=bool(wrong), hlat=hlat)
    if wrong:
        layout = regime.layout(level, raw)
        names = " ".join(f.name for f in layout.values() if f.mask & wrong)
        fault = page_fault(va, code, level, pa, raw, f"reserved bits are set ({wrong:#x})", names, f"{SDM} 5.7")
        if regime.mode is PAE and level.number == 3 and regime.profile.pdptes_with_cr3 and not nested:
            # PDPTEs are checked when CR3 is loaded: MOV to CR3 raises #GP(0) (Intel SDM volume 3A 5.4.1)
            fault = replace(fault, name="#GP", code=0, source=f"{SDM} 5.4.1", syndrome={})
            code = 0
    else:
        fault = page_fault(va, code, level, pa, raw, "the entry is not present", "P", f"{SDM} 5.7")
    also = rules.doomed(regime, access, path)
    return replace(fault, causes=("RSVD" if wrong else "P",), allowed=(code,), also=also)


def page_fault(va: int, code: int, level: Level, pa: int, raw: int, rule: str, bit: str, source: str) -> X86Fault:
    """A #PF; CR2 is the linear address."""
    return X86Fault(
        va=va, name="#PF", code=code, rule=rule, level=level.number, entry_pa=pa, entry=raw, bit=bit, source=source,
        syndrome={"CR2": va},
    )  # fmt: skip
