"""What a verification found: agreements by kind, pages decided by a rule, and every disagreement."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One place where the tables and the kernel differ, both sides in words."""

    checkpoint: int
    space: str
    va: int
    tables: str
    kernel: str

    def text(self) -> str:
        """One line for people."""
        return f"cp{self.checkpoint} {self.space} {self.va:#018x}: tables: {self.tables}; kernel: {self.kernel}"


@dataclass(slots=True)
class VerifyReport:
    """The outcome of `verify`: `ok` is True where nothing disagrees.

    `agreements` counts pagemap words by what the tables hold there, `by_rule` those that a named rule decided from
    other evidence in the capture; together they are all words. `soft_dirty` counts where that bit came from in the
    words that agree. `present` counts the words that say present with the frame that the tables hold. `walker` and
    `tlb` count the further comparisons. `notes` says what was not compared.
    """

    file: str
    arch: str
    kernel: str
    checkpoints: tuple[int, ...]
    present: int = 0
    agreements: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[str] = field(default_factory=Counter)
    soft_dirty: Counter[str] = field(default_factory=Counter)
    walker: Counter[str] = field(default_factory=Counter)
    tlb: Counter[str] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.disagreements

    def text(self) -> str:
        """The report for people."""
        points = ", ".join(map(str, self.checkpoints))
        lines = [f"{self.file}: {self.arch}, Linux {self.kernel}, checkpoints {points}"]
        lines += [f"pages present in pagemap with the frame of the tables: {self.present}"]
        lines += _table(f"pagemap words that agree: {self.agreements.total()}", self.agreements)
        lines += _table(f"decided by a rule from other evidence: {self.by_rule.total()}", self.by_rule)
        lines += _table(f"soft-dirty words among those that agree: {self.soft_dirty.total()}", self.soft_dirty)
        lines += _table("reference walker, sampled", self.walker)
        lines += _table("QEMU's info tlb, whole address spaces", self.tlb)
        lines += [f"note: {note}" for note in self.notes]
        lines += [item.text() for item in self.disagreements]
        lines.append(f"{len(self.disagreements)} disagreements")
        return "\n".join(lines)

    def shape(self) -> dict[str, Any]:
        """The stable JSON shape."""
        return {
            "file": self.file,
            "arch": self.arch,
            "kernel": self.kernel,
            "ok": self.ok,
            "checkpoints": list(self.checkpoints),
            "present": self.present,
            "agreements": dict(sorted(self.agreements.items())),
            "by_rule": dict(sorted(self.by_rule.items())),
            "soft_dirty": dict(sorted(self.soft_dirty.items())),
            "walker": dict(sorted(self.walker.items())),
            "tlb": dict(sorted(self.tlb.items())),
            "notes": self.notes,
            "disagreements": [
                {"checkpoint": d.checkpoint, "space": d.space, "va": f"{d.va:#x}", "tables": d.tables,
                 "kernel": d.kernel}
                for d in self.disagreements
            ],
        }  # fmt: skip


def _table(title: str, counts: Counter[str]) -> list[str]:
    if not counts:
        return []
    return [f"{title}:", *(f"  {n:>8}  {name}" for name, n in sorted(counts.items()))]
