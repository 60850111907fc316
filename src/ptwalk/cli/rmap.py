"""`ptwalk rmap ...`: scenarios under the three accounting models, vectors, captures, exhaustive exploration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from cyclopts import App

from ..arch.errors import InputError
from . import common

rmap = App(name="rmap", help="Linux's rmap accounting: scenarios, vectors, captures, exploration.")

ModelName = Literal["precise", "no-page-mapcount", "total-mapped-pages", "all"]


def _models(model: str) -> list[str]:
    from ..rmap.models import MODELS

    return list(MODELS) if model == "all" else [model]


@rmap.command
def run(
    scenario: Path, /, *, model: ModelName = "all", literal: bool = False, entries: bool = False, json: bool = False
) -> int:
    """Run a scenario; after each step who maps what, each model's counters, and the /proc figures.

    Args:
        scenario: A scenario file (docs/scenarios.md).
        model: The accounting model to show; all three always run.
        literal: Keep the slips of mainline and of the posted series instead of doing what was meant.
        entries: Show every page-table entry that each step wrote, old and new, batch by batch.
        json: One JSON object instead of text (docs/scenarios.md).
    """
    from ..scenario import runner, shape, text
    from ..scenario.script import RecountError

    try:
        story = runner.run(scenario, literal=literal, entries=entries)
    except RecountError as error:
        print(f"ptwalk: recount: {error}", file=sys.stderr)
        return 1
    if json:
        common.print_json(shape.shape(story, _models(model)))
    else:
        print(text.text(story, _models(model)))
    return 0


@rmap.command
def diff(scenario: Path, /, *, literal: bool = False, json: bool = False) -> int:
    """Print just what differs between the models after each step, and which change of the series explains it.

    Args:
        scenario: A scenario file (docs/scenarios.md).
        literal: Keep the slips of mainline and of the posted series instead of doing what was meant.
        json: One JSON object instead of text (docs/scenarios.md).
    """
    from ..scenario import runner, shape, text
    from ..scenario.script import RecountError

    try:
        story = runner.run(scenario, literal=literal)
    except RecountError as error:
        print(f"ptwalk: recount: {error}", file=sys.stderr)
        return 1
    if json:
        common.print_json(shape.diff_shape(story, _models("all")))
    else:
        print(text.diff_text(story, _models("all")))
    return 0


@rmap.command
def conform(file: Path, /) -> int:
    """Run a file of accounting vectors and name the first difference; exit 1 if there is one.

    Args:
        file: Vectors, one JSON object a line, plain or xz-compressed.
    """
    from ..rmap.conform import conform as run_conform

    report = run_conform(file)
    print(report)
    return 0 if report.ok else 1


@rmap.command
def verify(capture: Path, /, *, json: bool = False) -> int:
    """Adopt a capture's page tables entry by entry and compare with what its kernel said; exit 1 if unexplained.

    Args:
        capture: A capture, as directory or .tar.xz.
        json: One JSON object instead of text (docs/json.md).
    """
    from ..rmap_verify import verify as run_verify

    report = run_verify(capture)
    if json:
        common.print_json(report.shape())
    else:
        print(report.text())
    return 0 if report.ok else 1


@rmap.command
def explore(
    *,
    order: int = 2,
    mms: int = 3,
    pmd_order: int = 2,
    depth: int = 6,
    max_states: int = 2000,
    kind: Literal["anon", "file", "shmem"] = "anon",
) -> int:
    """Try every sequence of operations on one small folio, all models against a recount; exit 1 at a violation.

    Args:
        order: The folio has 2**ORDER pages, at most 4.
        mms: Address spaces, at most 4.
        pmd_order: Order of a PMD in this small world, at least 1.
        depth: Operations in a row, at most 30.
        max_states: States after which it stops; it says whether it was complete.
        kind: What the folio holds.
    """
    from ..rmap.explore import Violation, World
    from ..rmap.explore import explore as run_explore
    from ..rmap.folio import Kind

    for name, value, low, high in (
        ("order", order, 0, 4),
        ("mms", mms, 1, 4),
        ("pmd-order", pmd_order, 1, 4),
        ("depth", depth, 1, 30),
        ("max-states", max_states, 1, 10_000_000),
    ):
        if not low <= value <= high:
            raise InputError(f"must lie between {low} and {high}", field=name, value=value)
    models = ("total-mapped-pages",) if order > pmd_order else World().models
    try:
        print(run_explore(World(order, Kind(kind), mms, pmd_order, models), depth, max_states))
    except Violation as violation:
        print(violation)
        return 1
    return 0
