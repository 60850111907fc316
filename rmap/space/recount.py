"""The recount: everything a system's counters must show, from page tables and the folio list alone, by brute force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...arch.linux import EntryKind, LinuxFlags
from ..folio import Folio, Kind
from ..levels import Level
from ..observer import mapped_folio
from ..truth import Mapping, problems, recount, statistics_problems
from ..views.inputs import State
from ..views.tables import RawEntry
from .area import GONE
from .process import Leaf, Process
from .system import System


def recount_problems(system: System) -> list[str]:
    """A sentence for each figure that disagrees with what the tables say, and for each entry that cannot be."""
    mappings: dict[Folio, list[Mapping]] = {folio: [] for folio in system.folios.values()}
    wrong: list[str] = []
    for process in system.processes.values():
        wrong += _stray_entries(process)
        for area in process.areas.values():
            for leaf in process.leaves(area.start, area.end):
                mappings.setdefault(leaf.folio, []).append((process.mm.id, leaf.level, leaf.page, 1))
                wrong += _rights(process, leaf)
    wrong += [f"{folio!r} is mapped and was freed" for folio in mappings if not system.is_alive(folio)]
    wrong += statistics_problems(system.acct, [*mappings, *system.freed])
    for folio, listed in mappings.items():
        truth = recount(folio.nr_pages, listed, system.levels)
        for model in system.acct.models.values():
            wrong += problems(model, folio, truth)
        expected = system.acct.driver.expected_ref_count(folio) + system.isolated[folio]
        if folio.refs != expected:
            wrong.append(f"{folio!r} has {folio.refs} references, its mappings and cache explain {expected}")
    return [*wrong, *_swap_problems(system), *system.acct.warnings]


def _stray_entries(process: Process) -> Iterator[str]:
    """Entries outside every area, entries of frames that no folio holds, and contiguous blocks that are not whole."""
    spans = sorted((vma.start, vma.end) for vma in process.vmas())
    blocks: dict[tuple[int, Level], list[RawEntry]] = {}
    for raw in process.tables.raw(0, process.tables.tree.va_end):
        where = f"{process.name}'s entry at va {raw.va:#018x}"
        if not any(start <= raw.va < end for start, end in spans):
            yield f"{where} lies in no area"
        entry = process.tables.page_entry(raw)
        if entry.state is State.PRESENT and not entry.special and mapped_folio(entry, process.system) is None:
            yield f"{where} maps frame {entry.pfn:#x}, which is no folio's"
        if LinuxFlags.CONTIG in process.linux.decode(raw.level.number, raw.raw).flags:
            size = _block(process, entry.level) * entry.nr_pages * process.page_size
            blocks.setdefault((raw.va // size * size, entry.level), []).append(raw)
    for (start, level), entries in blocks.items():
        yield from _block_problems(process, start, level, entries)


def _block(process: Process, level: Level) -> int:
    """Entries of a contiguous block: PTEs, or the PMDs of a hugetlb page (CONT_PMDS)."""
    return process.block if level == Level.PTE else 16 if process.page_size == 4096 else 32


def _block_problems(process: Process, start: int, level: Level, entries: list[RawEntry]) -> Iterator[str]:
    """A contiguous block is whole, its frames are consecutive and aligned, its entries otherwise alike."""
    decoded = [process.linux.decode(entry.level.number, entry.raw) for entry in entries]
    pfns = [entry.pfn or 0 for entry in decoded]
    where = f"{process.name}'s contiguous block at va {start:#018x}"
    count, step = _block(process, level), process.system.levels.size(level)
    if len(entries) != count:
        yield f"{where} has {len(entries)} of {count} entries"
    elif pfns != list(range(pfns[0], pfns[0] + count * step, step)) or pfns[0] % (count * step):
        yield f"{where} does not map consecutive, aligned frames"
    own = LinuxFlags.YOUNG | LinuxFlags.DIRTY
    if len({entry.flags & ~own for entry in decoded}) > 1:
        yield f"{where} has entries with different rights"


def _rights(process: Process, leaf: Leaf) -> Iterator[str]:
    """A writable entry stands in a writable area, and an anonymous one maps a page that is marked exclusive."""
    if not leaf.write or leaf.state is State.DEVICE_EXCLUSIVE:
        return
    area = process.area(leaf.va)
    where = f"{process.name}'s writable entry at va {leaf.va:#018x}"
    if area.pages[area.page(leaf.va)] == GONE or not area.writable(leaf.va):
        yield f"{where} stands in an area that is not writable"
    if leaf.folio.is_anon and leaf.folio.kind is not Kind.KSM and not leaf.folio.exclusive[leaf.page]:
        yield f"{where} maps page {leaf.page} of {leaf.folio!r}, which is not marked exclusive"
    if leaf.folio.kind is Kind.KSM:
        yield f"{where} maps a KSM page"
    if not leaf.folio.is_anon and area.is_cow:
        yield f"{where} writes through a private mapping of a file"


def _swap_problems(system: System) -> Iterator[str]:
    """The slots, recounted from the tables."""
    counts: Counter[int] = Counter()
    exclusive: set[int] = set()
    for process in system.processes.values():
        for other in process.nonpresent(0, process.tables.tree.va_end):
            if other.entry.kind is EntryKind.SWAP:
                counts[other.entry.offset or 0] += 1
                if LinuxFlags.EXCLUSIVE in other.entry.flags:
                    exclusive.add(other.entry.offset or 0)
    for slot in sorted(counts.keys() | system.swap.counts.keys()):
        counted = system.swap.counts.get(slot, 0)
        if counts[slot] != counted:
            yield f"swap slot {slot} is counted {counted} times, {counts[slot]} entries refer to it"
        if slot in exclusive and counts[slot] > 1:
            yield f"swap slot {slot} has an exclusive entry and {counts[slot] - 1} others"
