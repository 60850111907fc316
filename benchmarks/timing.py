"""Interleaved rounds of CPU time, of all threads, and ratios with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

Runs = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Ratio:
    """How much faster `ours` is than `theirs`: median of the rounds' ratios, and its quartiles."""

    row: str
    ratio: float
    low: float
    high: float
    ours_ns: float
    theirs_ns: float
    goal: float | None
    rounds: int

    def line(self) -> str:
        """The row of the table."""
        goal = "" if self.goal is None else f"{self.goal:6.2f} {'yes' if self.ratio >= self.goal else 'no':>4}"
        spread = f"[{self.low:.2f} {self.high:.2f}]"
        return f"{self.row:<58} {self.ratio:7.2f} {spread:>16} {self.ours_ns:9.2f} {self.theirs_ns:9.2f} {goal:>11}"

    def record(self) -> dict[str, object]:
        """The row for JSON."""
        return asdict(self)


HEADER = f"{'row':<58} {'ratio':>7} {'quartiles':>16} {'ours ns':>9} {'other ns':>9} {'goal':>6} {'met':>4}"


def measure(runs: Runs, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each run in each round; the order turns round by round."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names if turn % 2 else reversed(names):
            begin = time.process_time()
            runs[name]()
            taken = time.process_time() - begin
            if turn:  # the first round warms caches
                times[name].append(taken)
    return times


def compare(
    row: str, times: Mapping[str, list[float]], ours: str, theirs: str, items: int, goal: float | None = None
) -> Ratio:
    """The ratio of two runs measured together."""
    ratios = [b / a for a, b in zip(times[ours], times[theirs], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    nanoseconds = [statistics.median(times[name]) / items * 1e9 for name in (ours, theirs)]
    return Ratio(row, statistics.median(ratios), low, high, *nanoseconds, goal, len(ratios))
