"""The rules that explain why a kernel's word may differ from what its page tables determine.

Each rule names its evidence and explains single differences, never a field as a whole: a difference that does not
have exactly the shape the rule predicts stays unexplained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..arch.linux_proc import KPF
from ..rmap.adopt import AdoptedProcess
from ..rmap.folio import Flags, Kind
from ..rmap.levels import Level
from ..rmap.models import NoPageMapcount, Precise
from ..rmap.views.inputs import PageEntry, VmaFacts, is_file, is_hugetlb
from .compare import Comparison, Difference

_PAGE_TYPES = {"BUDDY": 0xF0, "OFFLINE": 0xF1, "PGTABLE": 0xF2, "SLAB": 0xF5}
"""The top byte of page_type (PGTY_*, include/linux/page-flags.h) of pages that kpageflags names."""
_READER_PID, _READER_CHECKPOINT = 1, 1


@dataclass(frozen=True)
class Rule:
    """A named reason, in one sentence, and the function that picks the differences it explains."""

    name: str
    because: str
    explain: Callable[[Comparison], Iterator[Difference]]


def _of(found: Comparison, *fields: str) -> Iterator[Difference]:
    return (d for d in found.differences if d.field in fields)


def _number(value: int | str) -> int:
    return value if isinstance(value, int) else 0


def _excess(d: Difference) -> int:
    return _number(d.ours) - _number(d.kernel)


# ---- the reader moves: FORMAT, "Only `ctl` moved (it faulted its own static buffers during cp1)"

_FAULTED_SMAPS = {"Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Private_Dirty", "Referenced", "Anonymous"}
_FAULTED_NUMA = {"anon", "dirty", "N<node>"}
_FAULTED_WORDS = {"pagemap.PFRAME", "pagemap.MMAP_EXCLUSIVE", "pagemap.PRESENT"}


def _reader(found: Comparison) -> AdoptedProcess | None:
    roots = found.adopted.checkpoint.roots
    if found.adopted.number != _READER_CHECKPOINT:
        return None
    return next((p for p in found.adopted.processes if roots[p.name].pid == _READER_PID), None)


def _just_faulted(found: Comparison, process: AdoptedProcess) -> list[PageEntry]:
    """Pages that look like newly written buffers: small anonymous folios, mapped here alone, young, dirty, writable."""
    pages = []
    for entry in process.entries(0, process.tables.tree.va_end):
        fresh = entry.present and entry.level is Level.PTE and entry.young and entry.dirty and entry.write
        folio = found.adopted.frames.folio(entry.pfn) if fresh and not entry.special else None
        if folio is not None and folio.kind is Kind.ANON and not folio.is_large and found.model.mapcount(folio) == 1:
            pages.append(entry)
    return pages


def reader_faulted(found: Comparison) -> Iterator[Difference]:
    """Pages that the process which reads /proc faulted in after it had read: the same number of them in every field."""
    process = _reader(found)
    if process is None:
        return
    fresh = {entry.va for entry in _just_faulted(found, process)}
    groups: dict[tuple[str, int], dict[str, list[Difference]]] = defaultdict(lambda: defaultdict(list))
    for d in found.differences:
        if d.process == process.name:
            file, _, name = d.field.partition(".")
            groups[file, d.where][name].append(d)
    page_kb = process.page_size >> 10
    for (file, where), fields in groups.items():
        area = next((vma for vma in process.areas if vma.start == where and file != "smaps_rollup"), None)
        room = sum(area is None or area.start <= va < area.end for va in fresh)
        moved = {name: sum(map(_excess, ds)) for name, ds in fields.items()}
        if file == "pagemap":
            right = where in fresh and {f"pagemap.{name}" for name in fields} <= _FAULTED_WORDS and "PRESENT" in fields
        elif file in ("smaps", "smaps_rollup"):
            wanted = _FAULTED_SMAPS & set(_labels(found, file, process.name, where))
            right = set(moved) == wanted and len(set(moved.values())) == 1
            right = right and 0 < moved["Rss"] <= room * page_kb and moved["Rss"] % page_kb == 0
        else:
            moved.pop("active", None)
            if all(_number(d.kernel) == 0 for d in fields.get("kernelpagesize_kB", ())):  # the line had no pages yet
                moved.pop("kernelpagesize_kB", None)
            right = set(moved) == _FAULTED_NUMA and len(set(moved.values())) == 1 and 0 < moved["anon"] <= room
        if right:
            for ds in fields.values():
                yield from ds


def _labels(found: Comparison, file: str, process: str, where: int) -> list[str]:
    records = found.adopted.smaps if file == "smaps" else found.adopted.rollups
    return next((list(record.fields) for record in records[process] if record.start == where), [])


# ---- swapped pages of shmem files are in the page cache's swap entries, not in page tables


def shmem_in_swap(found: Comparison) -> Iterator[Difference]:
    """Swap of shmem areas: no more than the area's empty pages, and than the swap that anonymous entries leave."""
    explained: dict[str, int] = defaultdict(int)
    files: dict[tuple[str, int], int] = defaultdict(int)
    candidates = []
    devices = _shmem_devices(found)
    for d in _of(found, "smaps.Swap"):
        process = next(p for p in found.adopted.processes if p.name == d.process)
        area = next(vma for vma in process.areas if vma.start == d.where)
        file = area.device, area.inode
        if area.device in devices and 0 < -_excess(d) <= _empty_kb(process, area):
            files[file] = max(files[file], -_excess(d))
            candidates.append(d)
    if sum(files.values()) > _swap_left_kb(found):
        return
    for d in candidates:
        explained[d.process] -= _excess(d)
        yield d
    for d in _of(found, "smaps_rollup.Swap"):
        if explained[d.process] == -_excess(d):
            yield d


def _shmem_devices(found: Comparison) -> set[str]:
    """Devices all of whose mapped pages, at least one, are shmem folios."""
    kinds: dict[str, set[bool]] = defaultdict(set)
    for process in found.adopted.processes:
        for area in filter(is_file, process.areas):
            for entry in () if is_hugetlb(area) else process.entries(area.start, area.end):
                folio = found.adopted.frames.folio(entry.pfn) if entry.present and not entry.special else None
                if folio is not None and not folio.is_anon:
                    kinds[area.device].add(folio.kind is Kind.SHMEM)
    return {device for device, seen in kinds.items() if seen == {True}}


def _empty_kb(process: AdoptedProcess, area: VmaFacts) -> int:
    filled = sum(entry.nr_pages for entry in process.entries(area.start, area.end) if entry.present)
    return (area.end - area.start - filled * process.page_size) >> 10


def _swap_left_kb(found: Comparison) -> int:
    """Swap in use that no anonymous entry refers to, in kB."""
    info, page_kb = found.adopted.meminfo, found.adopted.checkpoint.capture.page_size >> 10
    return info.get("SwapTotal", 0) - info.get("SwapFree", 0) - len(found.adopted.frames.swap_entries) * page_kb


# ---- statistics and fields that hold something else


def per_cpu_statistics(found: Comparison) -> Iterator[Difference]:
    """AnonPages and Mapped: within what all CPUs may hold back; at cp1 also the pages the reader faulted later."""
    page_kb = found.adopted.checkpoint.capture.page_size >> 10
    slack = found.adopted.zones.stat_slack * page_kb
    reader = _reader(found)
    later = len(_just_faulted(found, reader)) * page_kb if reader is not None else 0
    for d in _of(found, "meminfo.AnonPages"):
        if -slack <= _excess(d) <= slack + later:
            yield d
    for d in _of(found, "meminfo.Mapped"):
        if -slack <= _excess(d) <= slack:
            yield d


def page_type(found: Comparison) -> Iterator[Difference]:
    """kpagecount of an unmapped page with a page type: the type, sign-extended, plus one."""
    if not isinstance(found.model, NoPageMapcount):
        return
    shown = {KPF.mask(name): (1 << 64) - (0x100 - top << 24) + 1 for name, top in _PAGE_TYPES.items()}
    for d in _of(found, "kpagecount of unmapped frames"):
        flags = found.adopted.kpageflags.get(d.where) or 0
        if any(flags & bit and d.kernel == value for bit, value in shown.items()):
            yield d


def double_map(found: Comparison) -> Iterator[Difference]:
    """Every page of an anonymous folio with PG_double_map counts one mapping more while a PMD maps the folio."""
    adopted, model = found.adopted, found.model
    if adopted.kernel.version >= (6, 2) or not isinstance(model, Precise):
        return
    by_head: dict[int, list[Difference]] = defaultdict(list)
    for d in _of(found, "struct._mapcount"):
        folio = adopted.frames.folio(d.where)
        if folio is not None and folio.kind is Kind.ANON and folio.is_large and _excess(d) == -1:
            by_head[folio.pfn].append(d)
    for head, differences in by_head.items():
        folio = adopted.frames.folios[head]
        whole = len(differences) == sum(pfn in adopted.structs.pages for pfn in range(head, head + folio.nr_pages))
        if whole and adopted.structs.double_map(head) and model.entire_mapcount(folio):
            yield from differences


def page_aging(found: Comparison) -> Iterator[Difference]:
    """Referenced: at most the pages that are referenced by PG_young alone, which aging sets at any time."""
    if found.adopted.young_bit is None:
        return
    for d in _of(found, "smaps.Referenced", "smaps_rollup.Referenced"):
        process = next(p for p in found.adopted.processes if p.name == d.process)
        whole = d.field == "smaps_rollup.Referenced"
        areas = [vma for vma in process.areas if whole or vma.start == d.where]
        if 0 < _excess(d) <= sum(_young_only_kb(found, process, area) for area in areas):
            yield d


def _young_only_kb(found: Comparison, process: AdoptedProcess, area: VmaFacts) -> int:
    pages = 0
    for entry in process.entries(area.start, area.end):
        folio = found.adopted.frames.folio(entry.pfn) if entry.present and not entry.special else None
        if folio is not None and not entry.young and folio.flags & (Flags.YOUNG | Flags.REFERENCED) == Flags.YOUNG:
            pages += entry.nr_pages
    return pages * process.page_size >> 10


def other_history(found: Comparison) -> Iterator[Difference]:
    """Slots that another order of maps and unmaps leads to; compare_slots checked that they are legal."""
    return _of(found, "struct._mm_id (other history)")


RULES = (
    Rule(
        "reader-faulted",
        "the capture's FORMAT: the process that reads /proc faulted its own buffers in during checkpoint 1; the files "
        "lack the same number of exclusive, dirty, anonymous pages in every field",
        reader_faulted,
    ),
    Rule(
        "shmem-in-swap",
        "swapped pages of a shmem file stand in the page cache, not in page tables; they fit into the area's empty "
        "pages and into the swap that no page-table entry refers to",
        shmem_in_swap,
    ),
    Rule(
        "per-cpu-statistics",
        "meminfo lags behind by up to `vm stats threshold` pages for each CPU and node (zoneinfo)",
        per_cpu_statistics,
    ),
    Rule(
        "page-type",
        "without CONFIG_PAGE_MAPCOUNT kpagecount shows the page type of a page that is free, a slab or a page table",
        page_type,
    ),
    Rule(
        "double-map",
        "until 6.1 each page of an anonymous folio that is mapped by PMD and by PTE (PG_double_map is set) counts one "
        "mapping more",
        double_map,
    ),
    Rule(
        "page-aging",
        "idle page tracking is at work (kpageflags shows idle pages): when another process's entry was aged after "
        "smaps had been read, PG_young makes the shared page count as referenced here too",
        page_aging,
    ),
    Rule(
        "mm-id-history",
        "which two mms have slots depends on history; slots and shared bit are legal for the entries there are, and "
        "were adopted",
        other_history,
    ),
)
"""All rules; each difference is explained by the first that takes it."""


def explain(found: Comparison) -> dict[Difference, str]:
    """The rule's name for every difference that one explains."""
    names: dict[Difference, str] = {}
    for rule in RULES:
        for difference in rule.explain(found):
            names.setdefault(difference, rule.name)
    return names
