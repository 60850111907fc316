"""A scenario's run as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from .changes import Difference, explain
from .runner import Run, StepShown
from .snapshot import FolioShown


def _header(run: Run, models: Sequence[str]) -> dict[str, object]:
    return {
        "scenario": run.name,
        "arch": run.settings.arch,
        "bits": run.settings.bits,
        "literal": run.settings.literal,
        "limits": run.settings.limits,
        "models": list(models),
    }


def shape(run: Run, models: Sequence[str]) -> dict[str, object]:
    """Everything that was looked at after each step."""
    return _header(run, models) | {"steps": [_step(run, step, models) for step in run.steps]}


def _step(run: Run, step: StepShown, models: Sequence[str]) -> dict[str, object]:
    snapshot = step.snapshot
    return {
        "line": step.line.number,
        "step": step.line.text,
        "notes": step.notes,
        "miscounted": snapshot.miscounted,
        "refusals": [
            {"model": model, "folio": folio, "because": why}
            for (model, folio), why in step.refusals.items()
            if model in models
        ],
        "folios": {name: _folio(folio, models) for name, folio in snapshot.folios.items()},
        "processes": {
            name: {model: column for model, column in columns.items() if model in models}
            for name, columns in snapshot.processes.items()
        },
        "system": {model: column for model, column in snapshot.system.items() if model in models},
        "contiguous": snapshot.contiguous,
        "others": snapshot.others,
        "entries": None if step.entries is None else [vars(one) for one in step.entries],
        "view": None if step.view is None else {"file": step.view.file, "models": step.view.models},
        "probe": None if step.probe is None else {"page": step.probe.page, "models": step.probe.models},
        "differences": [_difference(one) for one in explain(snapshot, models, run.settings.literal)],
    }


def _folio(folio: FolioShown, models: Sequence[str]) -> dict[str, object]:
    return {
        "order": folio.order,
        "kind": folio.kind,
        "pfn": f"{folio.pfn:#x}",
        "references": folio.references,
        "exclusive_pages": folio.exclusive_pages,
        "mapped": {
            name: [{"level": level.name, "first": first, "pages": n} for level, first, n in parts]
            for name, parts in folio.mapped.items()
        },
        "models": {model: column for model, column in folio.models.items() if model in models},
        "refused": {model: why for model, why in folio.refused.items() if model in models},
    }


def _difference(one: Difference) -> dict[str, object]:
    return {
        "where": one.where,
        "figure": one.figure,
        "values": one.values,
        "change": one.change,
        "because": one.because,
    }


def diff_shape(run: Run, models: Sequence[str]) -> dict[str, object]:
    """Only what differs, by step, and how many differences nothing explains."""
    steps: list[dict[str, object]] = []
    unexplained = 0
    for step in run.steps:
        found = explain(step.snapshot, models, run.settings.literal)
        unexplained += sum(one.because is None for one in found)
        if found or step.refusals:
            refusals = [{"model": m, "folio": f, "because": why} for (m, f), why in step.refusals.items()]
            differences = [_difference(one) for one in found]
            line = {"line": step.line.number, "step": step.line.text}
            steps.append(line | {"refusals": refusals, "differences": differences})
    return _header(run, models) | {"steps": steps, "unexplained": unexplained}
