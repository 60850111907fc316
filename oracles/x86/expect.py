"""What ptwalk's reference walker expects of a case, and the name of the deviation where an emulator differs."""

from __future__ import annotations

from functools import lru_cache

from ptwalk.mmu.memory import WordMemory
from ptwalk.mmu.walk import AccessKind, Translation, outcome
from ptwalk.mmu.x86_64.access import X86Access
from ptwalk.mmu.x86_64.regime import X86Regime

from . import protocol as p

_KINDS = (AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE, AccessKind.WRITE, AccessKind.READ)
_VECTORS = {"#GP": 13, "#PF": 14}
_PRESENT, _RSVD, _PK = 1, 8, 32


@lru_cache(maxsize=256)
def _regime(registers: tuple[tuple[str, int], ...], maxphyaddr: int, profile: str) -> X86Regime:
    return X86Regime.from_registers(dict(registers), {"maxphyaddr": maxphyaddr, "profile": profile})


def expect(case: p.Case, profile: str) -> p.Answer:
    """The answer of the reference walker under a profile; the words are those after accessed and dirty updates."""
    regime = _regime(tuple(case.state.registers.items()), case.state.maxphyaddr, profile)
    rmw, implicit = case.kind == p.RMW, case.kind == p.DESCRIPTOR
    access = X86Access(_KINDS[case.kind], case.cpl == 3, implicit, rmw=rmw)
    memory = WordMemory(dict(case.words))
    end = outcome(regime.walk(memory, case.va, access, update=True))
    after = tuple(memory.words[pa] for pa in case.words)
    if isinstance(end, Translation):
        return p.Answer(None, 0, 0, end.pa, after)
    return p.Answer(_VECTORS[end.name], end.code, end.syndrome.get("CR2", 0), 0, after)


def is_safe(answer: p.Answer) -> bool:
    """Whether a case leaves the harness alone: an access that goes through has to end in a cell."""
    return answer.vector is not None or answer.pa in p.CELLS


def is_refusal(answer: p.Answer) -> bool:
    """Whether a leaf was reached and the access to it refused."""
    return answer.vector == 14 and answer.error & (_PRESENT | _RSVD) == _PRESENT


def explain(case: p.Case, architecture: p.Answer, seen: p.Answer) -> str:
    """The deviation that separates the architecture's answer from one that the emulator's profile expects as well."""
    if architecture.vector is None or seen.vector is None:
        return _whether_allowed(case)
    changed = architecture.error ^ seen.error
    names = []
    if changed & _PRESENT and seen.error & _RSVD:
        names.append("a reserved bit is told with P=0")
    if changed & _PK:
        names.append("a protection key's refusal is told differently")
    if changed & ~(_PRESENT | _PK):
        names.append("a locked access is told as the load it begins with")
    if architecture.after != seen.after:
        names.append("a fault leaves accessed bits set")
    return "; ".join(names)


def _whether_allowed(case: p.Case) -> str:
    if case.kind == p.DESCRIPTOR:
        return "RFLAGS.AC lifts SMAP for an implicit access"
    return "PKRU is applied by CPL" if case.kind != p.RMW else "PKRU is applied by CPL to a locked access"


def difference(expected: p.Answer, seen: p.Answer) -> str:
    """The first thing that differs between two answers, in a word."""
    for name in ("vector", "error", "cr2", "pa", "after"):
        if getattr(expected, name) != getattr(seen, name):
            return {"error": "error code", "pa": "physical address", "after": "words afterwards"}.get(name, name)
    return ""
