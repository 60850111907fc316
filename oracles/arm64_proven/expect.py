"""What ptwalk's reference walker expects of a case, and which of QEMU's named deviations an answer rests on."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ptwalk.arch.arm64.faults import FaultType
from ptwalk.arch.errors import BusError
from ptwalk.mmu.arm64.access import Arm64Access, Operation
from ptwalk.mmu.arm64.features import PROFILES, QEMU_MAX, Choices
from ptwalk.mmu.arm64.syndrome import par
from ptwalk.mmu.arm64.system import SystemState
from ptwalk.mmu.arm64.walk import make_context, outcome_of, run
from ptwalk.mmu.walk import AccessKind, Fault, Translation

from . import protocol as p

PROFILE = "qemu-7.2"
EMULATOR = PROFILES[PROFILE]
ARCHITECTURE = replace(EMULATOR, deviations=frozenset())
_OPERATIONS = {
    "LDR": Operation.READ,
    "STR": Operation.WRITE,
    "SWP": Operation.ATOMIC,
    "LDXR": Operation.EXCLUSIVE_READ,
    "fetch": Operation.FETCH,
}
_HALVES = (Operation.READ, Operation.WRITE)


class Ram:
    """The guest's memory as the walker may see it: the case's words, empty tables, cells; BusError elsewhere."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = dict(words)

    def read_uint(self, pa: int, size: int = 8) -> int:
        """The word at `pa`."""
        if pa in self.words:
            return self.words[pa]
        if pa in p.TABLES:
            return 0
        if pa in p.CELLS:
            return p.cell(pa)
        raise BusError(pa, size)

    def write_uint(self, pa: int, value: int, size: int = 8) -> None:
        """Store a word."""
        self.words[pa] = value


@lru_cache(maxsize=512)
def _system(registers: tuple[tuple[str, int], ...], choices: Choices) -> SystemState:
    return SystemState({"SCR_EL3": 1, **dict(registers)}, QEMU_MAX, choices)


def _access(case: p.Case, half: Operation | None = None) -> Arm64Access:
    """The access as the walker takes it; `half` for the load or the store that an atomic is made of."""
    if not case.is_real:
        return Arm64Access.at(case.form, pan=case.pan)
    if case.form in ("LDTR", "STTR"):
        return Arm64Access.unprivileged(AccessKind.READ if case.form == "LDTR" else AccessKind.WRITE, pan=case.pan)
    operation = half or _OPERATIONS[case.form]
    return Arm64Access(operation.traits.kind, case.el == 0, case.el, operation, case.pan)


def _accesses(case: p.Case, *, in_two: bool) -> tuple[Arm64Access, ...]:
    return tuple(_access(case, half=half) for half in _HALVES) if case.form == "SWP" and in_two else (_access(case),)


def _branched(system: SystemState, case: p.Case) -> int:
    """The address after a branch to it: a tag that TBI allows is dropped (Arm ARM, AArch64_BranchAddr)."""
    upper = case.va >> 55 & 1
    tagged = system.get("TCR_EL1", f"TBI{upper}") and not system.get("TCR_EL1", f"TBID{upper}")
    if case.form != "fetch" or not tagged:
        return case.va
    return case.va | 0xFF << 56 if upper else case.va & (1 << 56) - 1


def expect(case: p.Case, choices: Choices, *, in_two: bool = False) -> p.Answer | None:
    """The reference walker's answer; None where it leaves the memory that a case may touch.

    `in_two` makes an atomic a load, whose updates stay, and then a store, as QEMU does with one processor.
    """
    memory, system = Ram(case.words), _system(tuple(case.registers.items()), choices)
    for access in _accesses(case, in_two=in_two):
        ctx = make_context(system, memory, _branched(system, case), access, update=True)
        for _ in run(ctx):
            pass
        if ctx.detail.fault is not None:
            break
        if case.is_real and ctx.detail.pa not in p.CELLS:
            return None
    record = ctx.detail.fault
    if record is not None and record.level < 0 and record.fault in (FaultType.ACCESS_FLAG, FaultType.PERMISSION):
        return None  # there is no code for it: QEMU 7.2 ends in a failed assertion
    end = outcome_of(ctx, ctx.detail)
    if "External" in getattr(end, "name", "") or len(memory.words) != len(case.words):
        return None
    after = tuple(memory.words.values())
    if not case.is_real:
        return p.Answer("PAR_EL1", (par(ctx, ctx.detail),), after)
    if isinstance(end, Translation):
        return p.Answer("went through", (end.pa,), after) if end.pa in p.CELLS else None
    return p.Answer("abort", _abort(case, end), after)


def _abort(case: p.Case, fault: Fault) -> tuple[int | None, ...]:
    """Who takes the abort, its class and syndrome (Arm ARM D24.2.40)."""
    second = fault.stage == 2
    same_el = case.el == 1 and not second
    ec = (0x20 if case.form == "fetch" else 0x24) | same_el
    hpfar = fault.syndrome.get("HPFAR_EL2") if second else None
    return 2 if second else 1, ec, fault.syndrome["ISS"] & p.ISS_TOLD, fault.va, hpfar


def agrees(expected: p.Answer, seen: p.Answer) -> bool:
    """Whether two answers are equal, an HPFAR that the architecture leaves undefined aside."""
    if expected.end == "abort" == seen.end and expected.values[4] is None:
        return expected.values[:4] == seen.values[:4] and expected.after == seen.after
    return expected == seen


def explain(case: p.Case, seen: p.Answer) -> str:
    """The single deviation with which the architecture's rules give the answer seen; else that there are several."""
    halves = expect(case, ARCHITECTURE, in_two=True) if case.form == "SWP" else None
    if halves is not None and agrees(halves, seen):
        return "an atomic is a load, whose access flag stays, and then a store"
    for name in sorted(EMULATOR.deviations, key=lambda name: -_found.get(name, 0)):
        alone = expect(case, replace(ARCHITECTURE, deviations=frozenset({name})), in_two=True)
        if alone is not None and agrees(alone, seen):
            _found[name] = _found.get(name, 0) + 1
            return name
    return "several deviations at once"


_found: dict[str, int] = {}  # the most frequent is tried first


def difference(expected: p.Answer, seen: p.Answer) -> str:
    """The first thing that differs between two answers, in a word."""
    if expected.end != seen.end:
        return f"{seen.end}, expected {expected.end}"
    return f"{expected.end} values" if expected.values != seen.values else "words afterwards"
