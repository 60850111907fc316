"""What a campaign counts and tells: answers by class, progress on stderr, and every unexplained case in full."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

SHOWN = 5


class Tally:
    """Counts of one campaign; `failures` is the file that unexplained cases are written to, one JSON object a line."""

    def __init__(self, title: str, wanted: int, failures: Path) -> None:
        self.title, self.wanted, self.failures = title, wanted, failures
        self.outcomes: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.unexplained: Counter[str] = Counter()
        self.cases = 0
        self._began = self._told = time.monotonic()

    def add(self, outcome: str, explanation: str) -> None:
        """Count a case that the architecture or a named deviation explains."""
        self.cases += 1
        self.outcomes[outcome] += 1
        self.classes[explanation] += 1

    def fail(self, outcome: str, difference: str, case: dict[str, object]) -> None:
        """Count a case that nothing explains, and write it down."""
        self.cases += 1
        self.outcomes[outcome] += 1
        self.unexplained[difference] += 1
        with self.failures.open("a") as file:
            file.write(json.dumps({"difference": difference} | case) + "\n")
        if self.unexplained.total() <= SHOWN:
            print(f"unexplained: {difference}: {json.dumps(case)}", file=sys.stderr)

    def progress(self, *, always: bool = False) -> None:
        """One line on stderr, at most every ten seconds."""
        now = time.monotonic()
        if not always and now - self._told < 10:
            return
        self._told = now
        rate = self.cases / max(now - self._began, 1e-3)
        text = f"{self.cases} of {self.wanted} cases, {self.unexplained.total()} unexplained, {rate:.0f}/s"
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)

    def report(self) -> int:
        """The summary on stdout; the exit status: 1 where a case is unexplained."""
        self.progress(always=True)
        print(f"{self.title}: {self.cases} cases in {time.monotonic() - self._began:.0f} s")
        for name, counts in (("outcomes", self.outcomes), ("answers", self.classes), ("unexplained", self.unexplained)):
            print(f"  {name}: {counts.total()}")
            for text, n in counts.most_common():
                print(f"    {n:9} {text}")
        if self.unexplained:
            print(f"  the unexplained cases are in {self.failures}")
        return int(bool(self.unexplained))
