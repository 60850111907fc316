"""Runs a scenario: settings first, then one step after the other, with a snapshot after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..arch.errors import InputError
from ..rmap.errors import FreeError, Rejected
from ..rmap.space.system import Settings, System
from .script import Line, ScenarioError, Words, read
from .show import Probe, View, probe_page, show_file
from .snapshot import Snapshot, take
from .steps import SETTINGS, STEPS
from .trace import Trace, Written

QUIET = ("file", "folio", "mmap")
"""Steps after which nothing is mapped that was not mapped before: shown in one line."""


@dataclass
class StepShown:
    """One step of a scenario as it ran."""

    line: Line
    notes: list[str]
    snapshot: Snapshot
    refusals: dict[tuple[str, str], str] = field(default_factory=dict)
    probe: Probe | None = None
    view: View | None = None
    entries: list[Written] | None = None

    @property
    def quiet(self) -> bool:
        """Whether the step only prepares."""
        return self.line.words[0] in QUIET


@dataclass
class Run:
    """A scenario that ran: its settings and its steps."""

    name: str
    settings: Settings
    steps: list[StepShown]


def run(path: str | Path, *, literal: bool = False, entries: bool = False) -> Run:
    """Run a scenario file; ScenarioError for a step that cannot be, RecountError for a defect of ptwalk.

    With `entries` each step keeps what it wrote into the page tables.
    """
    return run_lines(read(path), path, literal=literal, entries=entries)


def run_lines(lines: list[Line], file: object = "scenario", *, literal: bool = False, entries: bool = False) -> Run:
    """Run the lines of a scenario.

    >>> from .script import parse
    >>> story = run_lines(parse("mmap A v anon 2M" + chr(10) + "fault A v"))
    >>> story.steps[-1].snapshot.system["total-mapped-pages"]["AnonPages"]
    2048
    """
    settings = Settings(literal=literal)
    system: System | None = None
    trace: Trace | None = None
    steps: list[StepShown] = []
    for line in lines:
        words = Words(line, file)
        if words.verb in SETTINGS:
            if system is not None:
                raise words.error("settings stand above the first step")
            SETTINGS[words.verb](settings, words)
            words.done()
            continue
        if system is None:
            system = System(settings)
            trace = Trace(system) if entries else None
        steps.append(_step(system, words))
        steps[-1].entries = None if trace is None else trace.take()
    if not steps:
        raise InputError("settings only, no step", file=file)
    return Run(Path(str(file)).name, settings, steps)


def _step(system: System, words: Words) -> StepShown:
    if words.verb == "probe":
        return StepShown(words.line, [], take(system), probe=probe_page(system, words))
    if words.verb == "show":
        return StepShown(words.line, [], take(system), view=show_file(system, words))
    if words.verb not in STEPS:
        raise words.error(f"no such step; there are {', '.join([*STEPS, 'probe', 'show'])}")
    before = dict(_refusals(system))
    try:
        notes = STEPS[words.verb](system, words)
    except (Rejected, FreeError) as error:
        raise words.error(f"refused by {error}") from error
    except ScenarioError:
        raise
    except InputError as error:
        raise words.error(str(error)) from error
    words.done()
    after = dict(_refusals(system))
    new = {key: sentence for key, sentence in after.items() if key not in before}
    return StepShown(words.line, notes, take(system), new)


def _refusals(system: System) -> Iterator[tuple[tuple[str, str], str]]:
    for name, folio in system.folios.items():
        for model in system.acct.models.values():
            refused = model.of(folio).refused
            if refused is not None:
                yield (model.name, name), refused
