"""The functional changes that the series' cover letter lists, and which of them explains a difference of two models.

A change explains a difference only if its own rule gives each model's value: each explanation checks the value against
the folios' mappings or against the other models, a figure's name alone is not enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..rmap.models import MODELS
from .snapshot import Column, FolioShown, Snapshot, Value

P, N, T = MODELS

CHANGES = {
    1: "AnonPages, Mapped: a folio counts with all its pages while any of them is mapped, not page by page",
    2: "mapmax: the folio's average mapcount, not that of the entry's first page",
    3: "PM_MMAP_EXCLUSIVE: whether one mm maps the whole folio, not whether this page is mapped once",
    4: "kpagecount: the folio's average mapcount for each of its pages, at least 1 while any is mapped",
    5: "Pss: each page is divided by the folio's average mapcount, not by its own",
    6: "Uss: private is a folio that certainly one mm maps, not a page that is mapped once",
    7: "partial detection: while as many pages are mapped in sum as the folio has, a hole is not noticed",
}
"""The cover letter's functional changes by number, in one sentence each."""
ROUNDING = "rounding: total-mapped-pages divides an entry's whole size by the average, no-page-mapcount each page"
SLIP = "literal: a slip of the posted code (a PMD counts with its folio's size; hugetlb averages are divided twice)"
SLIP_FIGURES = (
    "Rss",
    "Pss",
    "Shared",
    "Private",
    "Anonymous",
    "Referenced",
    "kpagecount",
    "mapmax",
    "average mapcount",
)

BY_FIGURE = {
    "AnonPages": 1,
    "Mapped": 1,
    "mapmax": 2,
    "MMAP_EXCLUSIVE": 3,
    "kpagecount": 4,
    "Pss": 5,
    "Pss_Dirty": 5,
    "Pss_Anon": 5,
    "Pss_File": 5,
    "Pss_Shmem": 5,
    "Pss_Locked": 5,
    "Shared": 6,
    "Private": 6,
    "Shared_Clean": 6,
    "Shared_Dirty": 6,
    "Private_Clean": 6,
    "Private_Dirty": 6,
    "partially mapped": 7,
    "split_deferred": 7,
    "nr_anon_partially_mapped": 7,
    "deferred split queue": 7,
}
"""Which change can move a figure; anything else has no explanation."""


@dataclass(frozen=True)
class Difference:
    """One figure that differs after a step; `change` is the cover letter's number, `because` the rule in words.

    `because` is None for a difference that nothing explains.
    """

    where: str
    figure: str
    values: dict[str, Value]
    change: int | None
    because: str | None

    @property
    def label(self) -> str:
        """`(5)`, the first word of another rule, or UNEXPLAINED."""
        if self.change is not None:
            return f"({self.change})"
        return "UNEXPLAINED" if self.because is None else f"({self.because.partition(':')[0]})"

    def values_text(self) -> str:
        """Each model's value."""
        return ", ".join(f"{model} {_word(value)}" for model, value in self.values.items())


def _word(value: Value) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def explain(snapshot: Snapshot, models: Sequence[str], literal: bool) -> list[Difference]:
    """Every figure that differs between the models, with its explanation or without one."""
    found: list[Difference] = []
    for name, folio in snapshot.folios.items():
        found += _differences(f"folio {name}", folio.models, models, literal, snapshot)
    for name, columns in snapshot.processes.items():
        found += _differences(f"process {name}", columns, models, literal, snapshot)
    return found + _differences("system", snapshot.system, models, literal, snapshot)


def _differences(
    where: str, columns: dict[str, Column], models: Sequence[str], literal: bool, snapshot: Snapshot
) -> list[Difference]:
    shown = [model for model in models if model in columns]
    figures = dict.fromkeys(figure for model in shown for figure in columns[model])
    found = []
    for figure in figures:
        values = {model: columns[model][figure] for model in shown if figure in columns[model]}
        if len(set(values.values())) > 1:
            change, because = _reason(where, figure, values, literal, snapshot)
            found.append(Difference(where, figure, values, change, because))
    return found


def _reason(
    where: str, figure: str, values: dict[str, Value], literal: bool, snapshot: Snapshot
) -> tuple[int | None, str | None]:
    change = BY_FIGURE.get(figure)
    if N in values and T in values and values[N] != values[T]:
        if literal and figure in SLIP_FIGURES:
            return None, SLIP
        if change == 5 and P not in values and _close(values[N], values[T]):
            return None, ROUNDING
        if not (change == 5 and _close(values[N], values[T])):
            return None, None
    if change is None or P not in values:
        return None, None
    other = values.get(T, values.get(N))
    assert other is not None
    if not _CHECKS[change](where, values[P], other, snapshot):
        return None, None
    return change, f"({change}) {CHANGES[change]}"


def _close(a: Value, b: Value) -> bool:
    """Whether two sums that are truncated once to kB can differ by their quotients' rounding alone."""
    return isinstance(a, int) and isinstance(b, int) and abs(a - b) <= 1


# ---- what each change's rule demands of the mappings


def _mapped(folio: FolioShown) -> list[list[tuple[int, int]]]:
    return [[(first, n) for _, first, n in parts] for parts in folio.mapped.values()]


def _uneven(folio: FolioShown) -> bool:
    """Whether not all of the folio's pages are mapped equally often: only then a page differs from the average."""
    points: dict[int, int] = {0: 0, 1 << folio.order: 0}
    for first, n in (part for parts in _mapped(folio) for part in parts):
        points[first] = points.get(first, 0) + 1
        points[first + n] = points.get(first + n, 0) - 1
    counts, now = set(), 0
    for page in sorted(points)[:-1]:
        now += points[page]
        counts.add(now)
    return len(counts) > 1


def _folios(where: str, snapshot: Snapshot) -> list[FolioShown]:
    """The large folios that a figure is about."""
    kind, _, name = where.partition(" ")
    if kind == "folio":
        return [snapshot.folios[name]]
    folios = [folio for folio in snapshot.folios.values() if folio.order]
    return [folio for folio in folios if kind == "system" or name in folio.mapped]


def _holes(folio: FolioShown) -> bool:
    """Whether some but not all pages are mapped."""
    covered = end = 0
    for first, n in sorted(part for parts in _mapped(folio) for part in parts):
        covered += max(first + n - max(first, end), 0)
        end = max(end, first + n)
    return 0 < covered < 1 << folio.order


def _any_hole(where: str, precise: Value, other: Value, snapshot: Snapshot) -> bool:
    """N and T count the folio whole: more than P, and only where a folio has unmapped pages."""
    return int(precise) < int(other) and any(_holes(folio) for folio in _folios(where, snapshot))


def _any_uneven(where: str, precise: Value, other: Value, snapshot: Snapshot) -> bool:
    """Averages differ from pages only where pages of one folio are mapped unequally often."""
    return any(_uneven(folio) for folio in _folios(where, snapshot))


def _any_shared_view(where: str, precise: Value, other: Value, snapshot: Snapshot) -> bool:
    """A page and its folio can disagree: the folio reads as shared, or one process maps a page of it twice."""
    for folio in _folios(where, snapshot):
        shared = any(bool(column.get("maybe mapped shared")) for column in folio.models.values())
        if shared or len(folio.mapped) == 1:
            return True
    return False


def _any_partial(where: str, precise: Value, other: Value, snapshot: Snapshot) -> bool:
    """P noticed a hole which the others have not, or which they noticed at another time: the folio is partly mapped.

    Once flagged a folio stays so: a flag that P raised earlier explains a difference after the hole was filled again.
    """
    return bool(precise) and any(folio.models.get(P, {}).get("partially mapped") for folio in _folios(where, snapshot))


_CHECKS: dict[int, Callable[[str, Value, Value, Snapshot], bool]] = {
    1: _any_hole,
    2: _any_uneven,
    3: _any_shared_view,
    4: _any_uneven,
    5: _any_uneven,
    6: _any_shared_view,
    7: _any_partial,
}
