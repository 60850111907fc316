"""Partially mapped folios: the reclaim-time scan, and the deferred split."""

from __future__ import annotations

from ..folio import Folio
from ..models import MODELS
from ..partial import deferred_split_scan, scan_partially_mapped
from ..space.system import System
from .migrate import mappings, split_folio


def scan(system: System) -> list[str]:
    """The reclaim-time scan under every model: what it walked, what it left out and why, what it flagged."""
    notes = []

    def mapped(folio: Folio) -> list[tuple[int, int]]:
        return [(leaf.page, leaf.nr_pages) for _, leaf in mappings(system, folio)]

    for model in system.acct.models.values():
        report = scan_partially_mapped(model, list(system.folios.values()), mapped)
        flagged = ", ".join(system.name_of(folio) for folio in report.flagged) or "nothing"
        skipped = "".join(f", {n} left out ({why})" for why, n in sorted(report.skipped.items()))
        notes.append(f"{model.name}: {report.walked} walked{skipped}; flagged {flagged}")
    return notes


def deferred_split(system: System, model: str) -> list[str]:
    """deferred_split_scan over one model's queue; a split folio is split for all."""
    assert model in MODELS
    names = {id(folio): name for name, folio in system.folios.items()}
    report = deferred_split_scan(system.acct.models[model], lambda folio: split_folio(system, folio))
    parts = {"split": report.split, "put back": report.requeued, "dropped": report.dropped}
    told = [f"{what} {', '.join(names[id(folio)] for folio in folios)}" for what, folios in parts.items() if folios]
    return [f"{model}: {'; '.join(told) or 'the queue is empty'}"]
