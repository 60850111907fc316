"""The page of a scenario: after each step the folios, the counters of the models, and the /proc figures."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..rmap.models import MODELS
from ..scenario.changes import explain
from ..scenario.runner import Run, StepShown
from ..scenario.snapshot import FolioShown
from ..scenario.text import ALWAYS, PROCESS_ROWS, PROCESS_UNITS, SYSTEM_UNITS
from ..scenario.trace import lines
from .accounting import LEVELS, figures_table, folio_picture, interesting
from .document import document

_FOLIO_ROWS = ("mapcount", "kpagecount", "partially mapped")


def story_page(run: Run) -> str:
    """The whole page of a scenario that ran, as one string of HTML."""
    parts, prepared = [], []
    for step in run.steps:
        if step.quiet and not step.notes:
            prepared.append(step.line.text)
            continue
        before = f"<pre class='dim'>{escape(chr(10).join(prepared))}</pre>" if prepared else ""
        parts.append((f"line {step.line.number}: {step.line.text}", before + "".join(_step(run, step))))
        prepared = []
    if prepared:
        parts.append(("then", f"<pre>{escape(chr(10).join(prepared))}</pre>"))
    return document(f"{run.name}: rmap scenario", f"{run.name}, {run.settings.arch}", parts)


def _step(run: Run, step: StepShown) -> Iterator[str]:
    for note in step.notes:
        yield f"<p>{escape(note)}</p>"
    for sentence in step.snapshot.miscounted:
        yield f'<p class="fault">miscounted: {escape(sentence)}</p>'
    for (model, name), why in step.refusals.items():
        yield f'<p class="fault">{escape(model)} leaves {escape(name)}: {escape(why)}</p>'
    if step.probe is not None:
        yield f"<p>{escape(step.probe.page)}</p>" + figures_table(step.probe.models, list(MODELS))
        return
    if step.view is not None:
        for model, text in step.view.models.items():
            title = f"{step.view.file}, {model}"
            yield f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
        return
    yield from _written(step)
    yield LEVELS
    for name, folio in step.snapshot.folios.items():
        yield from _folio(name, folio)
    if step.snapshot.others:
        yield f"<p class='dim'>{step.snapshot.others} folios of one page, copied or split off, are not drawn.</p>"
    yield '<div class="side">'
    for name, columns in step.snapshot.processes.items():
        rows = {model: {row: column[row] for row in PROCESS_ROWS} for model, column in columns.items()}
        shown = figures_table(interesting(rows, ALWAYS), list(MODELS), units=PROCESS_UNITS)
        yield f"<div><h3>process {escape(name)}</h3>{shown}</div>"
    shown = figures_table(interesting(step.snapshot.system, ALWAYS), list(MODELS), units=SYSTEM_UNITS)
    yield f"<div><h3>system</h3>{shown}</div></div>"
    yield from _differences(run, step)


def _written(step: StepShown) -> Iterator[str]:
    if step.entries:
        text = "\n".join(lines(step.entries))
        total = sum(one.entries for one in step.entries)
        yield f"<details><summary>{total} entries written</summary><pre>{escape(text)}</pre></details>"


def _folio(name: str, folio: FolioShown) -> Iterator[str]:
    exclusive = f", {folio.exclusive_pages} marked exclusive" if folio.kind == "anon" else ""
    title = f"folio {name}: {folio.kind}, order {folio.order}, {folio.references} references{exclusive}"
    yield f"<h3>{escape(title)}</h3>" + folio_picture(1 << folio.order, folio.mapped)
    yield figures_table(interesting(folio.models, _FOLIO_ROWS), list(MODELS))


def _differences(run: Run, step: StepShown) -> Iterator[str]:
    found = explain(step.snapshot, list(MODELS), run.settings.literal)
    if not found:
        return
    yield f'<details><summary>{len(found)} figures differ between the models</summary><div class="scroll"><table>'
    for one in found:
        why = escape(one.because or "UNEXPLAINED")
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (one.where, one.figure, one.values_text()))
        yield f"<tr>{cells}<td>{why}</td></tr>"
    yield "</table></div></details>"
