"""Assertions for people who test their own page tables; a failure shows the walk.

Each takes a Machine (ptwalk.loaders.load, or the fixture `ptwalk_machine` of the pytest plugin) and the name of one of
its address spaces; without a name it is the space of the machine's own registers, or its only one. Any test framework
will do: a failure is an AssertionError.

>>> import pathlib, tempfile
>>> from .loaders import load
>>> path = pathlib.Path(tempfile.mkdtemp()) / "small.toml"
>>> _ = path.write_text('''
... preset = "x86_64-4level"
... memory = [{ start = 0, size = "1M" }]
... spaces = [{ name = "A", mappings = [{ va = "0x40_0000", pa = "0x8000", size = "4K", rights = "r-x" }] }]
... ''')
>>> machine = load(path)
>>> hex(assert_translates(machine, 0x40_0123, 0x8123, access="execute").pa)
'0x8123'
>>> assert_faults(machine, 0x40_0123, access="write", name="#PF", code=0x7).bit
'RW'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .arch.errors import InputError
from .mmu.machine import ROOT_REGISTER, Machine
from .mmu.regime import Regime
from .mmu.spaces import Leaf, leaves
from .mmu.walk import ALL_RIGHTS, Access, AccessKind, Fault, Outcome, Rights, Step, Translation, finish, outcome
from .render import outcome_lines, step_line

AccessName = Literal["read", "write", "execute"]
Mode = Literal["user", "kernel"]
_SHOWN = 10


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
    memory_type: str | None = None,
) -> Translation:
    """Assert that `va` translates, and where given: to `pa`, with a page of `page_size` bytes, exactly these `rights`.

    `memory_type` is the text that `ptwalk walk` shows: `WB`, `Device-nGnRE` ...
    """
    __tracebackhide__ = True
    steps, end = _walk(machine, va, space, access, mode)
    problems = ["it faults"]
    if isinstance(end, Translation):
        wanted = {"pa": pa, "page_size": page_size, "rights": rights, "memory_type": memory_type}
        got = {"pa": end.pa, "page_size": 1 << end.page_shift, "rights": end.rights, "memory_type": _memory_type(end)}
        problems = _differences(got, wanted)
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
    """Assert that an access to `va` faults, and where given: with this name, architectural code and level.

    `name` and `code` are the architecture's: `#PF` with its error code, `Translation fault` with its fault status code.
    """
    __tracebackhide__ = True
    steps, end = _walk(machine, va, space, access, mode)
    problems = ["it translates"]
    if isinstance(end, Fault):
        wanted = {"name": name, "code": code, "level": level}
        problems = _differences({"name": end.name, "code": end.code, "level": end.level}, wanted)
        if not problems:
            return end
    raise AssertionError(_message(va, access, mode, "does not fault as expected", problems, steps, end))


def assert_unreachable(
    machine: Machine, start: int, size: int, rights: Rights = ALL_RIGHTS, *, space: str | None = None
) -> None:
    """Assert that no address of the space reaches physical memory `start` to `start + size` with any of `rights`."""
    __tracebackhide__ = True
    regime = _regime(machine, space)
    found = [
        run
        for run in _runs(machine, regime)
        if run.rights & rights and run.pa < start + size and start < run.pa + run.size
    ]
    if found:
        head = f"physical {start:#018x}-{start + size:#018x} is reached ({(found[0].rights & rights).text()}) from"
        first = found[0].va + max(0, start - found[0].pa)
        access = _access(found[0].rights & rights)
        lines = [head, *_listed([run.text() for run in found]), *_walked(machine, regime, first, access)]
        raise AssertionError("\n".join(lines))


def assert_same_mappings(
    one: Machine, other: Machine, *, space: str | None = None, other_space: str | None = None
) -> None:
    """Assert that two spaces map the same addresses to the same memory with the same rights and memory types.

    Page sizes may differ. `space` holds for both machines unless `other_space` is given.
    """
    __tracebackhide__ = True
    regimes = _regime(one, space), _regime(other, space if other_space is None else other_space)
    differences = list(_different(list(_runs(one, regimes[0])), list(_runs(other, regimes[1]))))
    if not differences:
        return
    lines = [f"the mappings differ in {len(differences)} ranges"]
    lines += _listed([d.text() for d in differences])
    first = differences[0]
    for title, machine, regime, run in (("one", one, regimes[0], first.one), ("other", other, regimes[1], first.other)):
        access = _access(run.rights if run else Rights.UR)
        lines += [f"{title}:", *_walked(machine, regime, first.va, access)]
    raise AssertionError("\n".join(lines))


# ---- walks


def _regime(machine: Machine, space: str | None) -> Regime:
    if space is None and ROOT_REGISTER[machine.arch] not in machine.registers:
        if len(machine.spaces) != 1:
            known = ", ".join(machine.spaces) or "none"
            raise InputError(f"say which address space (there are: {known})", file=machine.source, field="space")
        (space,) = machine.spaces
    return machine.regime(space)


def _walk(machine: Machine, va: int, space: str | None, access: AccessName, mode: Mode) -> tuple[list[Step], Outcome]:
    request = Access(AccessKind(access), user=mode == "user")
    return finish(_regime(machine, space).walk(machine.memory, va, request))


def _access(rights: Rights) -> Access:
    """A plain access that one of the rights is for."""
    for user in (True, False):
        for kind in AccessKind:
            if rights & Rights.of(kind, user=user):
                return Access(kind, user=user)
    return Access(user=True)


def _memory_type(end: Translation) -> str:
    return str(end.attributes.get("memory type", ""))


# ---- whole spaces


@dataclass(frozen=True, slots=True)
class _Run:
    """Memory that goes on alike from `va` on, whatever the page sizes."""

    va: int
    size: int
    pa: int
    rights: Rights
    memory_type: str

    @property
    def end(self) -> int:
        return self.va + self.size

    def at(self, va: int) -> tuple[int, Rights, str]:
        """What this run says of an address inside."""
        return self.pa + va - self.va, self.rights, self.memory_type

    def text(self) -> str:
        return f"{self.va:#018x}-{self.end:#018x} => {_said(self, self.va)}"


@dataclass(frozen=True, slots=True)
class _Difference:
    """What two spaces say of `va` to `end`; None where nothing is mapped."""

    va: int
    end: int
    one: _Run | None
    other: _Run | None

    def text(self) -> str:
        return f"{self.va:#018x}-{self.end:#018x} => {_said(self.one, self.va)}  |  {_said(self.other, self.va)}"


def _said(run: _Run | None, va: int) -> str:
    if run is None:
        return "nothing"
    pa, rights, memory_type = run.at(va)
    return f"{pa:#018x} {rights.text()} {memory_type}".rstrip()


def _runs(machine: Machine, regime: Regime) -> Iterator[_Run]:
    types: dict[tuple[object, ...], str] = {}
    now: _Run | None = None
    for leaf in leaves(machine.memory, regime):
        new = _Run(leaf.va, leaf.size, leaf.pa, leaf.rights, _leaf_type(machine, regime, leaf, types))
        if now and now.end == new.va and now.at(new.va) == new.at(new.va):
            now = _Run(now.va, now.size + new.size, now.pa, now.rights, now.memory_type)
            continue
        if now:
            yield now
        now = new
    if now:
        yield now


def _leaf_type(machine: Machine, regime: Regime, leaf: Leaf, known: dict[tuple[object, ...], str]) -> str:
    """The memory type that a walk tells; leaves with equal bits and rights share the answer."""
    key = (leaf.layout.name, leaf.flags, leaf.rights)
    if key not in known:
        end = outcome(regime.walk(machine.memory, leaf.va, _access(leaf.rights)))
        known[key] = _memory_type(end) if isinstance(end, Translation) else ""
    return known[key]


def _different(one: Sequence[_Run], other: Sequence[_Run]) -> Iterator[_Difference]:
    """Two ascending lists cut at each other's borders; the pieces that differ."""
    borders = sorted({border for run in (*one, *other) for border in (run.va, run.end)})
    left, right = iter(one), iter(other)
    a, b = next(left, None), next(right, None)
    for start, end in pairwise(borders):
        while a and a.end <= start:
            a = next(left, None)
        while b and b.end <= start:
            b = next(right, None)
        here = (a if a and a.va <= start else None, b if b and b.va <= start else None)
        if (here[0] and here[0].at(start)) != (here[1] and here[1].at(start)):
            yield _Difference(start, end, *here)


# ---- messages


def _differences(got: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    return [f"{k} is {_show(got[k])}, not {_show(x)}" for k, x in wanted.items() if x is not None and got[k] != x]


def _show(x: object) -> str:
    if isinstance(x, Rights):
        return x.text()
    return f"{x:#x}" if isinstance(x, int) else repr(x)


def _message(va: int, access: str, mode: str, what: str, problems: list[str], steps: list[Step], end: Outcome) -> str:
    head = f"{va:#018x} ({access}, {mode}) {what}: {'; '.join(problems)}"
    return "\n".join([head, *map(step_line, steps), *outcome_lines(end)])


def _walked(machine: Machine, regime: Regime, va: int, access: Access) -> list[str]:
    steps, end = finish(regime.walk(machine.memory, va, access))
    head = f"walk of {va:#018x} ({access.kind.value}, {'user' if access.user else 'kernel'})"
    return [head, *map(step_line, steps), *outcome_lines(end)]


def _listed(lines: list[str]) -> list[str]:
    more = [f"  ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [*(f"  {line}" for line in lines[:_SHOWN]), *more]
