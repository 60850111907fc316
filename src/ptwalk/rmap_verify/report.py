"""The result of a verification: counts for each field, differences by rule, and what stays unexplained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .compare import Difference
from .rules import RULES

_SHOWN = 20


@dataclass
class RmapVerifyReport:
    """What `ptwalk rmap verify` found.

    `evidence` says how model and configuration were determined. `compared` counts values by field, `explained` by
    (rule, field); `unexplained` are defects of the model or of the capture.
    """

    capture: str
    kernel: str
    model: str
    evidence: list[str]
    checkpoints: list[int]
    compared: Counter[str] = field(default_factory=Counter)
    explained: Counter[tuple[str, str]] = field(default_factory=Counter)
    unexplained: list[Difference] = field(default_factory=list)
    not_compared: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """No difference is left without a rule."""
        return not self.unexplained

    def differing(self, name: str) -> int:
        """How many values of a field differ, explained or not."""
        explained = sum(n for (_, field_name), n in self.explained.items() if field_name == name)
        return explained + sum(d.field == name for d in self.unexplained)

    def text(self) -> str:
        """For people: the verdict, then a line for each field, rule and unexplained difference."""
        left = len(self.unexplained)
        numbers = ", ".join(map(str, self.checkpoints))
        lines = [
            f"{self.capture}: Linux {self.kernel}, checkpoints {numbers}, model {self.model}",
            *(f"  {sentence}" for sentence in self.evidence),
            f"  {self.compared.total()} values compared, {self.explained.total()} differ for a known reason, "
            f"{left} unexplained",
            f"  {'field':<34}{'compared':>10}{'differ':>8}",
        ]
        lines += [f"  {name:<34}{n:>10}{self.differing(name):>8}" for name, n in sorted(self.compared.items())]
        lines += [f"  not compared: {name}: {why}" for name, why in sorted(self.not_compared.items())]
        for rule in RULES:
            fields = {name: n for (rule_name, name), n in sorted(self.explained.items()) if rule_name == rule.name}
            if fields:
                shown = ", ".join(f"{name} {n}" for name, n in fields.items())
                lines += [f"  rule {rule.name}: {sum(fields.values())}", f"    {rule.because}", f"    {shown}"]
        lines += [f"  UNEXPLAINED {difference.text()}" for difference in self.unexplained[:_SHOWN]]
        if left > _SHOWN:
            lines.append(f"  ... and {left - _SHOWN} more unexplained differences")
        return "\n".join(lines)

    def shape(self) -> dict[str, object]:
        """For JSON: the same, every unexplained difference included; addresses and frames are hexadecimal strings."""
        rules = {rule.name: rule.because for rule in RULES}
        return {
            "capture": self.capture,
            "kernel": self.kernel,
            "model": self.model,
            "evidence": self.evidence,
            "checkpoints": self.checkpoints,
            "ok": self.ok,
            "compared": dict(sorted(self.compared.items())),
            "explained": [
                {"rule": rule, "because": rules[rule], "field": name, "count": n}
                for (rule, name), n in sorted(self.explained.items())
            ],
            "unexplained": [
                {
                    "checkpoint": d.checkpoint,
                    "process": d.process,
                    "field": d.field,
                    "where": f"{d.where:#x}",
                    "tables": d.ours,
                    "kernel": d.kernel,
                }
                for d in self.unexplained
            ],
            "not_compared": dict(sorted(self.not_compared.items())),
        }
