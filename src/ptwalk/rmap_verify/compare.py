"""Compare what the views say of an adopted checkpoint with what its kernel said, field by field."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..arch.errors import InputError
from ..arch.linux_proc import KPF, PAGEMAP
from ..loaders.capture import PagemapRange
from ..rmap.adopt import AdoptedProcess
from ..rmap.figures import MemSizeStats, kpagecount
from ..rmap.folio import Folio
from ..rmap.models import Model, Precise
from ..rmap.views import numa_maps, smaps
from ..rmap.views.pagemap import PagemapView
from .adopted import Adopted
from .procfs import SmapsVma
from .slots import compare_slots

_MMAP = KPF.mask("MMAP")
_PAGEMAP_FIELDS = [f for f in PAGEMAP.values() if not f.role]


Value = int | str
"""A number in the file's unit (kB, pages, counter) or, for mm-id slots, a text."""


@dataclass(frozen=True)
class Difference:
    """One value on which tables and kernel differ; `where` is an address or a frame."""

    checkpoint: int
    process: str
    field: str
    where: int
    ours: Value
    kernel: Value

    def text(self) -> str:
        """For people: checkpoint, process, field, place, both values."""
        who = f" {self.process}" if self.process else ""
        return f"cp{self.checkpoint}{who} {self.field} at {self.where:#x}: tables {self.ours}, kernel {self.kernel}"


@dataclass
class Comparison:
    """What one checkpoint was compared in, and where it differs; `skipped` names fields that could not be compared."""

    adopted: Adopted
    model: Model
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    stats: dict[tuple[str, int], MemSizeStats] = field(default_factory=dict)

    def check(self, name: str, ours: Value, kernel: Value, where: int = 0, process: str = "") -> None:
        """Compare one value."""
        self.counts[name] += 1
        if ours != kernel:
            self.differences.append(Difference(self.adopted.number, process, name, where, ours, kernel))


def compare(adopted: Adopted, model: Model) -> Comparison:
    """Everything that is captured, under one model. Slots come first: where history decides, the kernel's are taken."""
    found = Comparison(adopted, model)
    _mappings(found)
    if adopted.structs.layout:
        compare_slots(found)
        _structs(found)
    else:
        found.skipped["struct"] = "no struct layout was captured"
    _kpage(found)
    for process in adopted.processes:
        _smaps(found, process)
        _numa_maps(found, process)
        _pagemap(found, process)
    _meminfo(found)
    return found


def _mappings(found: Comparison) -> None:
    """Entries no VMA explains, mappings no model takes, frames no kpageflags describes: all must be none."""
    for process in found.adopted.processes:
        found.counts["mapping"] += sum(1 for vma in process.areas for _ in process.entries(vma.start, vma.end))
        for va in process.outside:
            found.check("mapping.outside every VMA", 1, 0, va, process.name)
        for _ in process.refused:
            found.check("mapping.refused", 1, 0, 0, process.name)
    for pfn in sorted(found.adopted.frames.unknown):
        found.check("mapping.unknown frame", 1, 0, pfn)


# ---- kpagecount and kpageflags


def _kpage(found: Comparison) -> None:
    adopted, model = found.adopted, found.model
    lo, words = adopted.kpagecount.pfn_lo, adopted.kpagecount.values
    expected = array("Q", [0]) * len(words)
    mapped = bytearray(len(words))
    for folio in adopted.frames.folios.values():
        if not model.mapcount(folio):
            continue
        for page in range(folio.nr_pages):
            at = folio.pfn + page - lo
            if 0 <= at < len(words):
                expected[at] = kpagecount(model, folio, page)
                mapped[at] = 1
    found.counts["kpagecount"] += sum(mapped)
    found.counts["kpagecount of unmapped frames"] += len(words) - sum(mapped)
    for at in (i for i, (ours, kernel) in enumerate(zip(expected, words, strict=True)) if ours != kernel):
        name = "kpagecount" if mapped[at] else "kpagecount of unmapped frames"
        found.differences.append(Difference(adopted.number, "", name, lo + at, expected[at], words[at]))
    for folio in adopted.frames.folios.values():
        mmap = int(model.mapcount(folio) > 0)
        for pfn in range(folio.pfn, folio.pfn + folio.nr_pages):
            found.check("kpageflags.MMAP", mmap, int(bool((adopted.kpageflags.get(pfn) or 0) & _MMAP)), pfn)
    _unmapped(found)


def _unmapped(found: Comparison) -> None:
    """Frames that no entry maps must not have the MMAP flag."""
    adopted = found.adopted
    flags, known = adopted.kpageflags, adopted.frames.folios
    mapped = {pfn for folio in known.values() for pfn in range(folio.pfn, folio.pfn + folio.nr_pages)}
    claimed = {flags.pfn_lo + at for at, word in enumerate(flags.values) if word & _MMAP}
    found.counts["kpageflags.MMAP"] += len(flags.values) - len(mapped)
    for pfn in sorted(claimed - mapped):
        found.differences.append(Difference(adopted.number, "", "kpageflags.MMAP", pfn, 0, 1))


# ---- smaps, smaps_rollup, numa_maps


def _smaps(found: Comparison, process: AdoptedProcess) -> None:
    adopted = found.adopted
    parts = []
    records = {vma.start: vma for vma in adopted.smaps[process.name]}
    for vma in process.areas:
        stats = smaps.vma_stats(process, vma, adopted.frames, found.model, adopted.kernel.rules)
        found.stats[process.name, vma.start] = stats
        parts.append(stats)
        _record(found, "smaps", stats, records[vma.start], process.name)
    for rollup in adopted.rollups[process.name]:
        _record(found, "smaps_rollup", smaps.add_up(parts), rollup, process.name)


def _record(found: Comparison, file: str, stats: MemSizeStats, record: SmapsVma, process: str) -> None:
    ours = smaps.figures(stats)
    for label, kernel in record.fields.items():
        if label in ours:
            found.check(f"{file}.{label}", ours[label], kernel, record.start, process)


def _numa_maps(found: Comparison, process: AdoptedProcess) -> None:
    lines = {line.start: line for line in found.adopted.numa_maps[process.name]}
    if not lines:
        found.skipped["numa_maps"] = "not captured"
        return
    for vma in process.areas:
        if vma.start not in lines:
            found.check("numa_maps.line", 1, 0, vma.start, process.name)
            continue
        stats = numa_maps.vma_stats(process, vma, found.adopted.frames, found.model)
        ours, kernel = numa_maps.tokens(stats, vma), lines[vma.start].counts
        for name in ours | kernel:
            found.check(f"numa_maps.{_token(name)}", ours.get(name, 0), kernel.get(name, 0), vma.start, process.name)


def _token(name: str) -> str:
    return "N<node>" if name[0] == "N" else name


# ---- pagemap


def _pagemap(found: Comparison, process: AdoptedProcess) -> None:
    adopted = found.adopted
    if process.name not in adopted.checkpoint.tags:
        found.skipped[f"pagemap of {process.name}"] = "not captured"
        return
    pagemap = adopted.checkpoint.pagemap(process.name)
    view = PagemapView(process, adopted.frames, found.model, adopted.kernel.rules)
    ranges = {area.start: area for area in pagemap.ranges}
    if pagemap.missing:
        pages = sum(end - start for start, end in pagemap.missing) // process.page_size
        found.skipped[f"pagemap of {process.name}, {pages} pages"] = "captured only in part"
    for vma in process.areas:
        area = ranges.get(vma.start)
        if area is None or area.end > vma.end:
            found.check("pagemap.area", 1, 0, vma.start, process.name)
            continue
        ours = view.vma_words(vma, area.start, area.end)
        kernel = pagemap.entries[area.first : area.first + area.count]
        _words(found, ours, kernel, area, process)


def _words(
    found: Comparison, ours: array[int], kernel: memoryview, area: PagemapRange, process: AdoptedProcess
) -> None:
    for layout_field in _PAGEMAP_FIELDS:
        found.counts[f"pagemap.{layout_field.name}"] += area.count
    if ours.tobytes() == kernel.tobytes():
        return
    for at, (mine, theirs) in enumerate(zip(ours, kernel, strict=True)):
        for f in _PAGEMAP_FIELDS if mine != theirs else ():
            if f.get(mine) != f.get(theirs):
                va = area.start + at * process.page_size
                name = f"pagemap.{f.name}"
                values = f.get(mine), f.get(theirs)
                found.differences.append(Difference(found.adopted.number, process.name, name, va, *values))


# ---- struct pages


def _structs(found: Comparison) -> None:
    adopted, model = found.adopted, found.model
    for folio in adopted.frames.folios.values():
        if folio.is_large:
            _large(found, folio, model.fields(folio))
        elif model.mapcount(folio):
            _field(found, folio, "_mapcount", model.fields(folio))
    if not isinstance(model, Precise):
        found.skipped["struct._nr_pages_mapped"] = "the field does not exist without CONFIG_PAGE_MAPCOUNT"
        found.skipped["struct._mapcount of large folios"] = "not kept without CONFIG_PAGE_MAPCOUNT"
    for name in ("_large_mapcount", "_nr_pages_mapped", "_mm_id"):
        if name not in adopted.structs.layout:
            found.skipped[f"struct.{name}"] = f"Linux {adopted.kernel.release} has no such field"


def _field(found: Comparison, folio: Folio, name: str, ours: Mapping[str, int]) -> None:
    kernel = found.adopted.structs.field(folio.pfn, name)
    if name in ours and kernel is not None:
        found.check(f"struct.{name}", ours[name], kernel, folio.pfn)


def _large(found: Comparison, folio: Folio, ours: Mapping[str, int]) -> None:
    for name in ("_large_mapcount", "_entire_mapcount", "_nr_pages_mapped"):
        _field(found, folio, name, ours)
    _field(found, folio, "_nr_pages", {"_nr_pages": folio.nr_pages})
    if isinstance(found.model, Precise) and not folio.kind.is_hugetlb:
        _page_mapcounts(found, folio, found.model)


def _page_mapcounts(found: Comparison, folio: Folio, model: Precise) -> None:
    """Each page's `_mapcount`; until 6.1 a PMD mapping of a file folio counted in every page as well."""
    in_pages = model.entire_mapcount(folio) if found.adopted.kernel.version < (6, 2) and not folio.is_anon else 0
    for first, n, count in model.pages(folio).runs():
        for pfn in range(folio.pfn + first, folio.pfn + first + n):
            kernel = found.adopted.structs.mapcount(pfn)
            if kernel is not None:
                found.check("struct._mapcount", count + in_pages, kernel, pfn)


# ---- meminfo


def _meminfo(found: Comparison) -> None:
    for name, ours in found.model.stats.meminfo(found.adopted.acct.rules.page_size).items():
        if name in found.adopted.meminfo:
            found.check(f"meminfo.{name}", ours, found.adopted.meminfo[name])


def kpagecount_agreement(adopted: Adopted, model: Model) -> tuple[int, int]:
    """(frames of large folios whose kpagecount the model explains, frames compared): tells the models apart."""
    right = compared = 0
    for folio in adopted.frames.folios.values():
        if not folio.is_large or folio.kind.is_hugetlb or not model.mapcount(folio):
            continue
        for page in range(folio.nr_pages):
            kernel = adopted.kpagecount.get(folio.pfn + page)
            if kernel is not None:
                compared += 1
                right += kernel == kpagecount(model, folio, page)
    return right, compared


def require_processes(adopted: Iterable[Adopted]) -> None:
    """InputError where a checkpoint has no process at all: nothing would be compared."""
    for one in adopted:
        if not one.processes:
            raise InputError("the checkpoint names no process", file=one.checkpoint.where("roots.json"))
