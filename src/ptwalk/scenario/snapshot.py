"""What a scenario shows after a step: who maps what, each model's counters, and the /proc figures; and the recount."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..rmap.figures import kpagecount, pagemap_exclusive
from ..rmap.folio import Folio
from ..rmap.levels import Level
from ..rmap.models import Model, Precise
from ..rmap.models.precise import ENTIRELY_MAPPED
from ..rmap.space.process import Leaf, Process
from ..rmap.space.recount import recount_problems
from ..rmap.space.system import System
from ..rmap.views import meminfo, numa_maps, smaps
from ..rmap.views.rules import AS_MEANT
from .script import RecountError

Value = int | str | bool
Column = dict[str, Value]
"""One model's figures by name; a figure that the model does not keep is missing."""


@dataclass
class FolioShown:
    """One folio: `mapped` is what each process maps as (level, first page, pages), neighbours of a level joined."""

    order: int
    kind: str
    pfn: int
    references: int
    exclusive_pages: int
    mapped: dict[str, list[tuple[Level, int, int]]] = field(default_factory=dict)
    models: dict[str, Column] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class Snapshot:
    """Everything after a step, by model; a model is missing where it refused a folio that the figures contain.

    `others` counts small folios that were copied or split off and are counted in every figure but not listed.
    """

    folios: dict[str, FolioShown]
    processes: dict[str, dict[str, Column]]
    system: dict[str, Column]
    contiguous: dict[str, int]
    miscounted: list[str] = field(default_factory=list)
    others: int = 0


def take(system: System) -> Snapshot:
    """Look at the system, after a recount; RecountError where counters and page tables disagree.

    Literal runs keep slips that miscount: there the recount's findings are told, not raised.
    """
    leaves = {name: _leaves(system, process) for name, process in system.processes.items()}
    wrong = recount_problems(system)
    if wrong and not system.settings.literal:
        raise RecountError("; ".join(wrong))
    folios = {
        name: _folio(system, folio, leaves) for name, folio in system.folios.items() if _interesting(system, folio)
    }
    shown = {
        name: {
            model.name: _process(system, system.processes[name], found, model)
            for model in system.acct.models.values()
            if not any(model.of(leaf.folio).refused for leaf in found)
        }
        for name, found in leaves.items()
    }
    mapped = {leaf.folio for found in leaves.values() for leaf in found}
    figures = {
        model.name: _system(model)
        for model in system.acct.models.values()
        if not any(model.of(folio).refused for folio in mapped)
    }
    others = len(system.folios) - len(folios)
    return Snapshot(folios, shown, figures, _contiguous(system), wrong, others)


def _leaves(system: System, process: Process) -> list[Leaf]:
    return [leaf for vma in process.vmas() for leaf in process.leaves(vma.start, vma.end)]


def _contiguous(system: System) -> dict[str, int]:
    """Entries with arm64's contiguous bit, by process."""
    if system.arch != "arm64":
        return {}
    found = {
        name: sum(process.folded(vma.start, vma.end) for vma in process.vmas())
        for name, process in system.processes.items()
    }
    return {name: n for name, n in found.items() if n}


def _interesting(system: System, folio: Folio) -> bool:
    """A small folio made by a deferred split, and a copied page, tells nothing that a row for each would be worth."""
    return folio.is_large or "+" not in system.name_of(folio)


# ---- folios


def _folio(system: System, folio: Folio, leaves: dict[str, list[Leaf]]) -> FolioShown:
    exclusive = folio.exclusive.count(0, folio.nr_pages, 1) if folio.is_anon else 0
    shown = FolioShown(folio.order, folio.kind.value, folio.pfn, folio.refs, exclusive)
    for name, found in leaves.items():
        parts = list(_joined([leaf for leaf in found if leaf.folio is folio]))
        if parts:
            shown.mapped[name] = parts
    ids = {process.mm.id: name for name, process in system.processes.items()}
    for model in system.acct.models.values():
        refused = model.of(folio).refused
        if refused is not None:
            shown.refused[model.name] = refused
        else:
            shown.models[model.name] = _counters(model, folio, ids)
    return shown


def _joined(leaves: list[Leaf]) -> Iterator[tuple[Level, int, int]]:
    """Neighbours of one level as one part; what a process maps again (another area) makes parts of its own."""
    rounds: list[list[Leaf]] = []
    times: Counter[tuple[Level, int]] = Counter()
    for leaf in sorted(leaves, key=lambda leaf: (leaf.page, leaf.level)):
        nth = times[leaf.level, leaf.page]
        times[leaf.level, leaf.page] += 1
        if nth == len(rounds):
            rounds.append([])
        rounds[nth].append(leaf)
    for one in rounds:
        parts: list[tuple[Level, int, int]] = []
        for leaf in one:
            if parts and parts[-1][0] == leaf.level and parts[-1][1] + parts[-1][2] == leaf.page:
                parts[-1] = (leaf.level, parts[-1][1], parts[-1][2] + leaf.nr_pages)
            else:
                parts.append((leaf.level, leaf.page, leaf.nr_pages))
        yield from parts


def _counters(model: Model, folio: Folio, ids: dict[int, str]) -> Column:
    fields = model.fields(folio)
    column: Column = {"mapcount": model.mapcount(folio)}
    if "_entire_mapcount" in fields:
        column["entire mapcount"] = fields["_entire_mapcount"] + 1
    plain = not folio.kind.is_hugetlb  # which has no slots, counts no pages and is never split
    if "_nr_pages_mapped" in fields and plain:
        word = fields["_nr_pages_mapped"]
        column["nr_pages_mapped"] = f"{'EM+' if word & ENTIRELY_MAPPED else ''}{word & ~ENTIRELY_MAPPED}"
    if "_total_mapped_pages" in fields and plain:
        column["total mapped pages"] = fields["_total_mapped_pages"]
    if folio.is_large and plain:
        slots = [(fields[f"_mm_id[{i}]"], fields[f"_mm_id_mapcount[{i}]"] + 1) for i in (0, 1)]
        column["mm-id slots"] = " ".join(f"{ids.get(mm_id, mm_id)}:{n}" if mm_id else "-" for mm_id, n in slots)
        column["shared bit"] = bool(fields["shared"])
    column["maybe mapped shared"] = model.maybe_mapped_shared(folio)
    column["average mapcount"] = model.average_page_mapcount(folio)
    column["kpagecount"] = _kpagecount(model, folio)
    if folio.is_anon and folio.order > 1 and plain:
        column["partially mapped"] = model.of(folio).partially_mapped
    return column


def _kpagecount(model: Model, folio: Folio) -> str:
    """Runs of equal values, `first..last:value`; one value alone where all pages have it."""
    runs: list[tuple[int, int, int]] = []
    starts = (
        [first for first, _, _ in model.pages(folio).runs()] if isinstance(model, Precise) and folio.is_large else [0]
    )
    for first, end in zip(starts, [*starts[1:], folio.nr_pages], strict=True):
        value = kpagecount(model, folio, first)
        if runs and runs[-1][2] == value:
            runs[-1] = (runs[-1][0], end, value)
        else:
            runs.append((first, end, value))
    if len(runs) == 1:
        return str(runs[0][2])
    return " ".join(f"{first}..{end - 1}:{value}" for first, end, value in runs)


# ---- processes and the system


def _process(system: System, process: Process, leaves: list[Leaf], model: Model) -> Column:
    vmas = process.vmas()
    stats = smaps.add_up(smaps.vma_stats(process, vma, system, model, AS_MEANT) for vma in vmas)
    shown: Column = dict(smaps.figures(stats))
    numa = [numa_maps.vma_stats(process, vma, system, model) for vma in vmas]
    return shown | {
        "Shared": stats.shared >> 10,
        "Private": stats.uss >> 10,
        "mapmax": max((one.mapcount_max for one in numa), default=0),
        "MMAP_EXCLUSIVE": sum(_exclusive_pages(model, leaf) for leaf in leaves),
    }


def _exclusive_pages(model: Model, leaf: Leaf) -> int:
    """Pages of an entry whose pagemap word has bit 56."""
    if isinstance(model, Precise) and leaf.folio.is_large:
        runs = model.pages(leaf.folio).runs(leaf.page, leaf.nr_pages)
        return sum(n for first, n, _ in runs if pagemap_exclusive(model, leaf.folio, first))
    return leaf.nr_pages * pagemap_exclusive(model, leaf.folio, leaf.page)


def _system(model: Model) -> Column:
    figures: Column = dict(meminfo.figures(model))
    anon, deferred, partial = model.stats.mthp()
    return figures | {
        "nr_anon": anon,
        "split_deferred": deferred,
        "nr_anon_partially_mapped": partial,
        "deferred split queue": len(model.deferred_split_queue),
    }
