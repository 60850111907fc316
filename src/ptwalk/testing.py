"""Assertions for people who test their own page tables; a failure shows the walk.

The pytest plugin (`ptwalk.pytest_plugin`, found by pytest once ptwalk is installed) offers them beside fixtures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from .mmu.machine import Machine
from .mmu.spaces import leaves, ranges
from .mmu.walk import Access, AccessKind, Fault, Outcome, Rights, Step, Translation, finish
from .render import outcome_lines, step_line

AccessName = Literal["read", "write", "execute"]
Mode = Literal["user", "kernel"]
_DIFFERENCES_SHOWN = 10


def assert_translates(
    machine: Machine,
    va: int,
    pa: int | None = None,
    *,
    space: str | None = None,
    access: AccessName = "read",
    mode: Mode = "user",
    page_size: int | None = None,
    rights: Rights | None = None,
) -> Translation:
    """Assert that `va` translates (to `pa`, with a page of `page_size` bytes, with exactly `rights`, where given)."""
    __tracebackhide__ = True
    steps, end = _walk(machine, va, space, access, mode)
    problems = [] if isinstance(end, Translation) else ["it faults"]
    if isinstance(end, Translation):
        wanted = {"pa": pa, "page_size": page_size, "rights": rights}
        got = {"pa": end.pa, "page_size": 1 << end.page_shift, "rights": end.rights}
        problems = [_difference(k, got[k], x) for k, x in wanted.items() if x is not None and got[k] != x]
        if not problems:
            return end
    raise AssertionError(_message(va, access, mode, "does not translate as expected", problems, steps, end))


def assert_faults(
    machine: Machine,
    va: int,
    *,
    space: str | None = None,
    access: AccessName = "read",
    mode: Mode = "user",
    name: str | None = None,
    code: int | None = None,
    level: int | None = None,
) -> Fault:
    """Assert that an access to `va` faults (with this name, architectural code and level, where given)."""
    __tracebackhide__ = True
    steps, end = _walk(machine, va, space, access, mode)
    problems = [] if isinstance(end, Fault) else ["it translates"]
    if isinstance(end, Fault):
        wanted = {"name": name, "code": code, "level": level}
        got = {"name": end.name, "code": end.code, "level": end.level}
        problems = [_difference(k, got[k], x) for k, x in wanted.items() if x is not None and got[k] != x]
        if not problems:
            return end
    raise AssertionError(_message(va, access, mode, "does not fault as expected", problems, steps, end))


def assert_same_mappings(
    one: Machine, other: Machine, *, space: str | None = None, other_space: str | None = None
) -> None:
    """Assert that two address spaces map the same addresses to the same memory with the same rights.

    Page sizes may differ: ranges are compared after neighbours that continue each other have been merged.
    """
    __tracebackhide__ = True
    left, right = _mappings(one, space), _mappings(other, space if other_space is None else other_space)
    pairs = zip_longest(left, right)
    differences = [f"  {_mapping(a)}  |  {_mapping(b)}" for a, b in pairs if a != b]
    if differences:
        head = f"the mappings differ in {len(differences)} ranges (of {len(left)} and {len(right)})"
        more = (
            [f"  ... and {len(differences) - _DIFFERENCES_SHOWN} more"] if len(differences) > _DIFFERENCES_SHOWN else []
        )
        raise AssertionError("\n".join([head, *differences[:_DIFFERENCES_SHOWN], *more]))


def _walk(machine: Machine, va: int, space: str | None, access: AccessName, mode: Mode) -> tuple[list[Step], Outcome]:
    request = Access(AccessKind(access), user=mode == "user")
    return finish(machine.regime(space).walk(machine.memory, va, request))


def _message(va: int, access: str, mode: str, what: str, problems: list[str], steps: list[Step], end: Outcome) -> str:
    head = f"{va:#018x} ({access}, {mode}) {what}: {'; '.join(problems)}"
    return "\n".join([head, *map(step_line, steps), *outcome_lines(end)])


def _difference(name: str, got: object, wanted: object) -> str:
    return f"{name} is {_show(got)}, not {_show(wanted)}"


def _show(x: object) -> str:
    if isinstance(x, Rights):
        return x.text()
    return f"{x:#x}" if isinstance(x, int) else repr(x)


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Memory that goes on alike, whatever the page sizes."""

    va: int
    size: int
    pa: int
    rights: Rights


def _mappings(machine: Machine, space: str | None) -> list[_Mapping]:
    merged: list[_Mapping] = []
    for r in ranges(leaves(machine.memory, machine.regime(space)), physical=True):
        last = merged[-1] if merged else None
        if last and (last.va + last.size, last.pa + last.size, last.rights) == (r.va, r.pa, r.rights):
            merged[-1] = _Mapping(last.va, last.size + r.size, last.pa, last.rights)
        else:
            merged.append(_Mapping(r.va, r.size, r.pa, r.rights))
    return merged


def _mapping(m: _Mapping | None) -> str:
    return "nothing" if m is None else f"{m.va:#018x}-{m.va + m.size:#018x} => {m.pa:#018x} {m.rights.text()}"
