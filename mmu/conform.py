"""What a conformance run found: agreement by engine and field, and the first disagreements in words."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 10


@dataclass(slots=True)
class Tally:
    """How many of the compared values agreed."""

    agreed: int = 0
    compared: int = 0


@dataclass(slots=True)
class ConformReport:
    """One vector file run through the reference walker (`reference`) and the kernel (`kernel`).

    `fields` maps engine and field to a `Tally`; `disagreements` holds the first `SHOWN` of each engine as text and
    `refused` why an engine did not take the file. `profile` is the behaviour asked for.

    >>> report = ConformReport("demo.npz", "x86_64", 2, "architecture")
    >>> report.compare("reference", 0, "pa", 0x1000, 0x1000), report.compare("reference", 1, "pa", 0x2000, 0x3000)
    (True, False)
    >>> print(report.text())
    demo.npz: x86_64, 2 cases, profile architecture
      reference  pa               1 of 2
      reference  1 of 2 values agree: DISAGREES
      case 1 (reference): pa is 0x2000, expected 0x3000
    """

    file: str
    arch: str
    cases: int
    profile: str
    fields: dict[str, dict[str, Tally]] = field(default_factory=dict)
    disagreements: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def compare(self, engine: str, case: int, name: str, got: int, *allowed: int, about: str = "") -> bool:
        """Count one value; it agrees where it is one of `allowed`. `about` describes the case for the list."""
        good = got in allowed
        self.count(engine, name, int(good), 1)
        if not good:
            wanted = " or ".join(f"{x:#x}" for x in dict.fromkeys(allowed))
            self.tell(engine, case, f"{name} is {got:#x}, expected {wanted}{about}")
        return good

    def count(self, engine: str, name: str, agreed: int, compared: int) -> None:
        """Add many values of one field at once."""
        tally = self.fields.setdefault(engine, {}).setdefault(name, Tally())
        tally.agreed += agreed
        tally.compared += compared

    def tell(self, engine: str, case: int, text: str) -> None:
        """Keep a disagreement in words, as long as there is room."""
        kept = self.disagreements.setdefault(engine, [])
        if len(kept) < SHOWN:
            kept.append(f"case {case} ({engine}): {text}")

    def total(self, engine: str) -> Tally:
        """All fields of one engine together."""
        tallies = self.fields.get(engine, {}).values()
        return Tally(sum(t.agreed for t in tallies), sum(t.compared for t in tallies))

    @property
    def ok(self) -> bool:
        """Whether every engine that took the file agrees in every value, and one did take it."""
        totals = [self.total(engine) for engine in self.fields]
        return bool(totals) and all(t.agreed == t.compared for t in totals)

    def text(self) -> str:
        """The report for people: fields, sums, refusals, the first disagreements."""
        lines = [f"{self.file}: {self.arch}, {self.cases} cases, profile {self.profile}"]
        for engine, fields in self.fields.items():
            lines += [f"  {engine:<10} {name:<16} {t.agreed} of {t.compared}" for name, t in fields.items()]
            total = self.total(engine)
            verdict = "agrees" if total.agreed == total.compared else "DISAGREES"
            lines.append(f"  {engine:<10} {total.agreed} of {total.compared} values agree: {verdict}")
        lines += [f"  {engine:<10} does not take this file: {why}" for engine, why in self.refused.items()]
        for engine, kept in self.disagreements.items():
            total = self.total(engine)
            lines += [f"  {line}" for line in kept]
            if (more := total.compared - total.agreed - len(kept)) > 0:
                lines.append(f"  ... and {more} more values ({engine})")
        return "\n".join(lines)

    def shape(self) -> dict[str, object]:
        """The stable JSON shape (docs/json.md)."""
        return {
            "file": self.file,
            "arch": self.arch,
            "cases": self.cases,
            "profile": self.profile,
            "ok": self.ok,
            "fields": {
                engine: {name: {"agreed": t.agreed, "compared": t.compared} for name, t in fields.items()}
                for engine, fields in self.fields.items()
            },
            "refused": self.refused,
            "disagreements": self.disagreements,
        }
