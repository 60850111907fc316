"""The x86 campaign: cases, an emulator's answers, the reference walker's, and a verdict for each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from .. import tools
from ..tally import Tally
from . import protocol as p
from .cases import Setup, cases
from .emulators import EMULATORS
from .expect import difference, expect, explain, is_refusal, is_safe

SETUPS = {
    "qemu": (Setup(4, 40), Setup(5, 40), Setup(4, 46), Setup(5, 52)),
    "bochs": (Setup(4, 40, (p.SMEP, p.SMAP, p.PKE), free_key_0=True),),
}

_OUTCOMES: dict[int | None, str] = {None: "went through", 13: "#GP", 14: "#PF"}


def version(emulator: str) -> str:
    """What the emulator says it is."""
    arguments = ["--version"] if emulator == "qemu" else ["--help", "cpu"]
    return tools.version(EMULATORS[emulator].program, *arguments)


class Prepared(NamedTuple):
    """A case with the architecture's answer and, where it was asked for already, the profile's."""

    case: p.Case
    architecture: p.Answer
    expected: p.Answer | None = None


def _safe(source: Iterator[p.Case], profile: str) -> Iterator[Prepared]:
    """The cases that leave the harness alone; the emulator may allow what the architecture refuses."""
    for case in source:
        architecture = expect(case, "architecture")
        if is_refusal(architecture):
            expected = expect(case, profile)
            if is_safe(expected):
                yield Prepared(case, architecture, expected)
        elif is_safe(architecture):
            yield Prepared(case, architecture)


def judge(prepared: Prepared, seen: p.Answer, profile: str, tally: Tally) -> None:
    """Count one answer: the architecture's, a named deviation, or unexplained."""
    case, architecture, known = prepared
    outcome = _OUTCOMES.get(seen.vector, f"vector {seen.vector}")
    if seen == architecture:
        tally.add(outcome, "as the architecture says")
        return
    expected = known or expect(case, profile)
    if seen == expected:
        tally.add(outcome, f"{profile}: {explain(case, architecture, seen)}")
        return
    answers = {"seen": seen, "expected": expected, "architecture": architecture}
    told = {name: answer.describe() for name, answer in answers.items()}
    tally.fail(outcome, difference(expected, seen), {"case": case.describe(), **told})


def run(emulator: str, count: int, seed: int, failures: Path) -> int:
    """Run `count` cases; the exit status."""
    kind, setups = EMULATORS[emulator], SETUPS[emulator]
    tally = Tally(f"x86 on {version(emulator)}, seed {seed}", count, failures)
    for number, setup in enumerate(setups):
        share = count // len(setups) + (number < count % len(setups))
        source = _safe(cases(Random(f"x86/{emulator}/{seed}/{setup.name}"), setup), kind.profile)
        machine = kind(setup.depth, setup.maxphyaddr)
        try:
            while share > 0:
                batch = list(islice(source, min(share, kind.batch)))
                answers = machine.run([prepared.case for prepared in batch])
                for prepared, seen in zip(batch, answers, strict=True):
                    judge(prepared, seen, kind.profile, tally)
                share -= len(batch)
                tally.progress()
        finally:
            machine.close()
    return tally.report()
