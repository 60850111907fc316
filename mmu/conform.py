"""What a conformance run found: agreement by engine and field, and the first disagreements in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 10


@dataclass(slots=True)
class EngineReport:
    """One engine's run over a vector file.

    `fields` maps a field's name to (compared, agreed), both in values; `disagreements` counts cases and `shown` holds
    the first `SHOWN` in words; `not_taken` counts cases that the engine does not handle, by reason.
    """

    name: str
    cases: int = 0
    fields: dict[str, tuple[int, int]] = field(default_factory=dict)
    disagreements: int = 0
    shown: list[str] = field(default_factory=list)
    not_taken: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, compared: int, agreed: int) -> None:
        """Add values of one field."""
        before = self.fields.get(name, (0, 0))
        self.fields[name] = before[0] + compared, before[1] + agreed

    def disagree(self, text: str) -> None:
        """A case that disagrees, in words."""
        self.disagreements += 1
        if len(self.shown) < SHOWN:
            self.shown.append(text)

    @property
    def ok(self) -> bool:
        return not self.disagreements and all(compared == agreed for compared, agreed in self.fields.values())

    def lines(self) -> list[str]:
        """The run for people: fields, sums, what was not taken, the first disagreements."""
        lines = [f"  {self.name:<10} {name:<18} {agreed} of {n}" for name, (n, agreed) in self.fields.items() if n]
        compared, agreed = (sum(pair[i] for pair in self.fields.values()) for i in (0, 1))
        verdict = "agrees" if self.ok else "DISAGREES"
        lines.append(f"  {self.name:<10} {self.cases} cases, {agreed} of {compared} values agree: {verdict}")
        lines += [f"  {self.name:<10} does not take {n} cases: {why}" for why, n in self.not_taken.items()]
        lines += [f"    {text}" for text in self.shown]
        if self.disagreements > len(self.shown):
            lines.append(f"    ... and {self.disagreements - len(self.shown)} more cases")
        return lines


@dataclass(slots=True)
class ConformReport:
    """One vector file run through the reference walker (`reference`) and the kernel (`kernel`).

    >>> report = ConformReport("demo.npz", "x86_64", "architecture", 2)
    >>> report.engine("reference").count("pa", 2, 1)
    >>> report.engine("reference").disagree("case 1: pa is 0x2000, expected 0x3000")
    >>> print(report.text())
    demo.npz: x86_64, 2 cases, profile architecture
      reference  pa                 1 of 2
      reference  0 cases, 1 of 2 values agree: DISAGREES
        case 1: pa is 0x2000, expected 0x3000
    """

    file: str
    arch: str
    profile: str
    cases: int
    engines: dict[str, EngineReport] = field(default_factory=dict)

    def engine(self, name: str) -> EngineReport:
        """The report of one engine, made at the first call."""
        return self.engines.setdefault(name, EngineReport(name))

    @property
    def ok(self) -> bool:
        """Whether an engine ran and none disagrees."""
        return any(e.cases for e in self.engines.values()) and all(e.ok for e in self.engines.values())

    def text(self) -> str:
        """The report for people."""
        head = f"{self.file}: {self.arch}, {self.cases} cases, profile {self.profile}"
        return "\n".join([head, *(line for engine in self.engines.values() for line in engine.lines())])

    def shape(self) -> dict[str, object]:
        """The stable JSON shape (docs/json.md)."""
        return {
            "file": self.file,
            "arch": self.arch,
            "cases": self.cases,
            "profile": self.profile,
            "ok": self.ok,
            "engines": {
                engine.name: {
                    "cases": engine.cases,
                    "fields": {k: {"compared": n, "agreed": good} for k, (n, good) in engine.fields.items()},
                    "disagreements": engine.disagreements,
                    "shown": engine.shown,
                    "not_taken": dict(engine.not_taken),
                }
                for engine in self.engines.values()
            },
        }
