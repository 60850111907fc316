"""A scenario's run as text: the map, the counters and the /proc figures after each step, differences marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..rmap.levels import ORDERS_BY_PAGE_SIZE, Level
from ..rmap.space.system import ARCHES
from ..rmap.stats import MEMINFO
from . import trace
from .changes import Difference, explain
from .picture import picture
from .runner import Run, StepShown
from .show import Probe, View
from .snapshot import Column, FolioShown, Snapshot, Value

MARK = "*"
PROCESS_ROWS = (
    "Rss",
    "Pss",
    "Shared",
    "Private",
    "AnonHugePages",
    "ShmemPmdMapped",
    "FilePmdMapped",
    "Shared_Hugetlb",
    "Private_Hugetlb",
    "Swap",
    "SwapPss",
    "mapmax",
    "MMAP_EXCLUSIVE",
)
"""What is printed of a process; kB, but mapmax is a count and MMAP_EXCLUSIVE pages. --json has every field."""
ALWAYS = ("Rss", "Pss", "Shared", "Private", "mapmax", "MMAP_EXCLUSIVE", "AnonPages", "Mapped", "AnonHugePages")
PROCESS_UNITS = {row: {"mapmax": "", "MMAP_EXCLUSIVE": "pages"}.get(row, "kB") for row in PROCESS_ROWS}
"""The unit of each row of a process."""
SYSTEM_UNITS: dict[str, str] = dict.fromkeys(MEMINFO, "kB")
"""The unit of the system's rows that have one."""
_WIDTH, _COLUMN = 28, 20


def text(run: Run, models: Sequence[str]) -> str:
    """The whole run, for people."""
    literal = ", literal (slips of the posted code kept)" if run.settings.literal else ""
    lines = [
        f"{run.name}: {run.settings.arch}, {ARCHES[run.settings.arch][1] >> 10}K pages{literal}",
        f"maps: t PTE, M PMD, U PUD, . not mapped, 2 mapped more than once; {MARK} the models differ",
    ]
    for step in run.steps:
        lines += ["", f"line {step.line.number}: {step.line.text}"]
        lines += [f"  {note}" for note in step.notes]
        lines += [f"  miscounted: {sentence}" for sentence in step.snapshot.miscounted]
        lines += [
            f"  {model} leaves {folio}: {why}" for (model, folio), why in step.refusals.items() if model in models
        ]
        lines += trace.lines(step.entries or ())
        if not step.quiet:
            lines += _step(run, step, models)
    return "\n".join(lines)


def sizes(run: Run) -> dict[Level, int]:
    """Pages one leaf of each level maps."""
    levels = ORDERS_BY_PAGE_SIZE[ARCHES[run.settings.arch][1]]
    return {level: levels.size(level) for level in Level}


def _step(run: Run, step: StepShown, models: Sequence[str]) -> list[str]:
    if step.probe is not None:
        return [f"  {step.probe.page}", *_probe_lines(step.probe, models)]
    if step.view is not None:
        return _view_lines(step.view, models)
    lines = ["  " + " " * _WIDTH + "".join(f"{name:>{_COLUMN}}" for name in models)]
    for name, folio in step.snapshot.folios.items():
        lines += _folio(run, name, folio, models)
    if step.snapshot.others:
        lines.append(f"  and {step.snapshot.others} folios of one page, copied or split off, that are not drawn")
    lines += _processes(step.snapshot, models)
    return [*lines, "  system", *table(step.snapshot.system, models, SYSTEM_UNITS)]


def _probe_lines(probe: Probe, models: Sequence[str]) -> list[str]:
    lines = []
    for field in ("pagemap", "kpagecount", "kpageflags"):
        said = {name: probe.models[name][field] for name in models if name in probe.models}
        differ = len(set(said.values())) > 1
        lines += [f"  {MARK if differ else ' '} {field:<11} {name:<20} {value}" for name, value in said.items()]
    return lines


def _view_lines(view: View, models: Sequence[str]) -> list[str]:
    """Each text once, under the models that print it."""
    by_text: dict[str, list[str]] = {}
    for model in models:
        by_text.setdefault(view.models.get(model, "refused"), []).append(model)
    mark = MARK if len(by_text) > 1 else " "
    lines = []
    for text, names in by_text.items():
        lines += [f"  {mark} {view.file} ({', '.join(names)})", *(f"      {row}".rstrip() for row in text.splitlines())]
    return lines


def _folio(run: Run, name: str, folio: FolioShown, models: Sequence[str]) -> list[str]:
    exclusive = f", {folio.exclusive_pages} marked exclusive" if folio.kind == "anon" else ""
    lines = [f"  folio {name}: {folio.kind}, order {folio.order}, {folio.references} references{exclusive}"]
    lines += [f"      {row}" for row in picture(folio, sizes(run))]
    return lines + table(folio.models, models, {}, folio.refused)


def _processes(snapshot: Snapshot, models: Sequence[str]) -> list[str]:
    lines = []
    for name, columns in snapshot.processes.items():
        folded = f", {snapshot.contiguous[name]} contiguous PTEs" if name in snapshot.contiguous else ""
        shown = {model: {row: column[row] for row in PROCESS_ROWS} for model, column in columns.items()}
        lines += [f"  process {name}{folded}", *table(shown, models, PROCESS_UNITS)]
    return lines


def rows_of(columns: Mapping[str, Column], models: Sequence[str]) -> list[tuple[str, list[Value | None], bool]]:
    """(figure, its value in each model or None, whether the models that have it differ)."""
    names = list(dict.fromkeys(name for model in models for name in columns.get(model, {})))
    rows = []
    for name in names:
        values = [columns[model].get(name) if model in columns else None for model in models]
        rows.append((name, values, len({value for value in values if value is not None}) > 1))
    return rows


def table(
    columns: Mapping[str, Column], models: Sequence[str], units: Mapping[str, str], refused: Mapping[str, str] = {}
) -> list[str]:
    """A line for each figure; figures that are 0 everywhere and of no lasting interest are left out."""
    lines = []
    for name, values, differ in rows_of(columns, models):
        if not any(values) and name not in ALWAYS and name not in ("mapcount", "kpagecount", "partially mapped"):
            continue
        cells = [_cell(value, model in columns) for model, value in zip(models, values, strict=True)]
        unit = f" {units[name]}" if units.get(name) else ""
        start = f"  {MARK if differ else ' '} {name + unit:<{_WIDTH - 2}}"
        if max(len(cell) for cell in cells) < _COLUMN:
            lines.append(start + "".join(f"{cell:>{_COLUMN}}" for cell in cells))
        else:  # too wide for columns: a line for each model
            lines += [
                start.rstrip(),
                *(f"        {model + ':':<20} {c}" for model, c in zip(models, cells, strict=True)),
            ]
    return lines


def _cell(value: Value | None, counted: bool) -> str:
    if value is None:
        return "-" if counted else "refused"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def diff_text(run: Run, models: Sequence[str]) -> str:
    """What differs after each step that changed it, each difference with the change of the series that explains it."""
    lines = [f"{run.name}: what differs between {', '.join(models)}"]
    told: set[str] = set()
    unexplained = 0
    before: list[Difference] = []
    for step in run.steps:
        found = explain(step.snapshot, models, run.settings.literal)
        refusals = [(model, folio, why) for (model, folio), why in step.refusals.items() if model in models]
        unchanged, before = found == before, found
        if unchanged and not refusals:
            continue
        lines += ["", f"line {step.line.number}: {step.line.text}"]
        lines += [f"  {model} leaves {folio}: {why}" for model, folio, why in refusals]
        lines += [] if found else ["  nothing differs"]
        for one in found:
            lines.append(f"  {one.where:<18} {one.figure:<26} {one.values_text()}  {one.label}")
            unexplained += one.because is None
            if one.because is not None and one.label not in told:
                told.add(one.label)
                lines.append(f"      {one.because}")
    if len(lines) == 1:
        lines.append("nothing differs")
    lines += ["", f"{unexplained} differences are UNEXPLAINED" if unexplained else "every difference is explained"]
    return "\n".join(lines)
