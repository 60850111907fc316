"""What the steps of a scenario do: the kernel's operations, in its order of references, counters and entries.

References are taken before a mapping is counted and dropped after it was; entries are written through the table
editor. Each function returns sentences about what the kernel would report (a refused fork, a copied page ...).
"""

from __future__ import annotations

from collections.abc import Iterator

from ..arch.linux import LinuxFlags
from ..rmap.errors import CounterOverflow, Rejected
from ..rmap.folio import Folio, Kind
from ..rmap.levels import Level
from ..rmap.models import MODELS
from ..rmap.partial import deferred_split_scan, scan_partially_mapped
from .machine import WRITE, WRITTEN, Area, Leaf, Machine, Process
from .swap import copy_entries, free_entries, free_unused

Run = tuple[int, Level, Folio, int, int]
"""Entries taken in one call: va, level, folio, its first page, pages."""


def runs(machine: Machine, leaves: list[Leaf]) -> Iterator[Run]:
    """Entries grouped as fork and zap batch them: PTEs of one folio within one page table, larger leaves one by one."""
    table = machine.levels.size(Level.PMD) * machine.page_size
    now: Run | None = None
    for leaf in leaves:
        if now is not None:
            va, level, folio, page, n = now
            end = va + n * machine.page_size
            joins = leaf.level == level == Level.PTE and leaf.folio is folio and leaf.va == end and end % table
            if joins and leaf.page == page + n:
                now = (va, level, folio, page, n + 1)
                continue
            yield now
        now = (leaf.va, leaf.level, leaf.folio, leaf.page, leaf.nr_pages)
    if now is not None:
        yield now


def _entries(machine: Machine, level: Level, n: int) -> int:
    return n >> machine.levels.order(level)


# ---- faults


def fault_anon(machine: Machine, process: Process, va: int, folio: Folio, level: Level | None) -> list[str]:
    """do_anonymous_page and do_huge_pmd_anonymous_page: the first mapping of a whole new folio.

    Another level than the kernel's choice maps it as swap-in would: an anonymous folio that was mapped before.
    """
    acct = machine.acct
    chosen = acct.driver.new_level(folio)
    if level in (None, chosen):
        acct.get(folio, acct.new_mappings(folio))
        acct.add_new_anon_rmap(folio, process.mm)
        machine.install(process, va, chosen, folio, 0, folio.nr_pages, WRITTEN)
        if chosen == Level.PMD and folio.order == machine.levels.pmd:
            acct.deferred_split_folio(folio, partially_mapped=False)
        return []
    assert level is not None
    folio.fresh = False
    for model in acct.live(folio):
        model.count_mthp(model.stats.mthp_nr_anon, folio, 1)
    step = machine.levels.size(Level(max(level, Level.PMD)))
    for page in range(0, folio.nr_pages, step):
        n = min(step, folio.nr_pages - page)
        acct.get(folio, _entries(machine, level, n))
        acct.add_anon_rmap(folio, process.mm, level, page, n, exclusive=True, exempt=True)
        machine.install(process, va + page * machine.page_size, level, folio, page, n, WRITTEN)
    return []


def fault_file(machine: Machine, process: Process, area: Area, first: int, end: int, level: Level) -> list[str]:
    """filemap_map_pages, do_set_pmd and a PUD fault: mappings of page-cache folios, stopped by the soft limit."""
    assert area.file is not None
    step = machine.levels.size(Level(max(level, Level.PMD)))
    at = first
    while at < end:
        found = area.file.at(area.offset + at)
        assert found is not None
        start, folio = found
        page = area.offset + at - start
        n = min(end - at, folio.nr_pages - page, step - (area.start // machine.page_size + at) % step)
        room = machine.acct.may_map(folio, level)
        n = min(n, room << machine.levels.order(level))
        if n == 0:
            return [f"VM_FAULT_OOM: the soft limit is reached, pages {at}..{end - 1} stay unmapped"]
        machine.acct.get(folio, _entries(machine, level, n))
        try:
            machine.acct.add_file_rmap(folio, process.mm, level, page, n)
        except CounterOverflow as refusal:
            machine.acct.put(folio, _entries(machine, level, n))
            return [f"VM_FAULT_OOM: {refusal.problem}"]
        except Rejected:
            machine.acct.put(folio, _entries(machine, level, n))
            raise
        machine.install(process, area.start + at * machine.page_size, level, folio, page, n, LinuxFlags.NONE)
        at += n
    return []


# ---- fork


def fork(machine: Machine, src: Process, name: str, files: bool) -> list[str]:
    """copy_page_range: anonymous mappings are duplicated, those of files only if asked for (the child faults them in).

    What may be pinned is copied for the child; at the soft limit fork fails with -ENOMEM and the child is gone.
    """
    dst = machine.process(name)
    notes: list[str] = []
    for key, area in src.areas.items():
        dst.areas[key] = area.copy()
        if area.file is not None and not files:
            continue
        for run in list(runs(machine, leaves_of(machine, src, area))):
            failed = _fork_run(machine, src, dst, run, notes)
            if failed:
                exit_mm(machine, dst)
                return [failed]
        copy_entries(machine, src, dst, area.start, area.start + area.nr_pages * machine.page_size)
    return notes


def _fork_run(machine: Machine, src: Process, dst: Process, run: Run, notes: list[str]) -> str:
    va, level, folio, page, n = run
    if machine.acct.may_map(folio, level) < _entries(machine, level, n):
        return f"-ENOMEM: {dst.name} is not created, {machine.name_of(folio)} is at the soft limit"
    if _dup(machine, src, dst, run):
        return ""
    name = machine.name_of(folio)
    if level == Level.PMD:
        split(machine, src, va)
        notes.append(f"{name} may be pinned: {src.name}'s PMD is split")
    if level == Level.PUD:
        notes.append(f"{name} may be pinned: its PUD is not duplicated, {dst.name} does not map it")
    else:
        for start, pages, _ in list(folio.exclusive.runs(page, n)):
            part = (va + (start - page) * machine.page_size, Level.PTE, folio, start, pages)
            if not _dup(machine, src, dst, part):
                _copy_for_child(machine, dst, part)
                notes.append(f"pages {start}..{start + pages - 1} of {name} may be pinned: copied for {dst.name}")
    return ""


def _dup(machine: Machine, src: Process, dst: Process, run: Run) -> bool:
    va, level, folio, page, n = run
    acct, count = machine.acct, _entries(machine, level, n)
    acct.get(folio, count)
    if folio.is_anon and acct.try_dup_anon_rmap(folio, dst.mm, src.mm, level, page, n):
        acct.put(folio, count)
        return False
    if not folio.is_anon:
        acct.dup_file_rmap(folio, dst.mm, level, page, n)
    leaves = machine.leaves(src, va, va + n * machine.page_size)
    for leaf in leaves:
        if leaf.write and folio.is_anon:
            machine.protect(src, leaf)
    machine.install(dst, va, level, folio, page, n, leaves[0].flags & ~WRITE)
    return True


def _copy_for_child(machine: Machine, dst: Process, run: Run) -> None:
    va, _, folio, page, n = run
    for at in range(n):
        name = machine.unused_name(f"{machine.name_of(folio)}+{page + at}'")
        fault_anon(machine, dst, va + at * machine.page_size, machine.new_folio(name, 0, Kind.ANON), None)


def leaves_of(machine: Machine, process: Process, area: Area) -> list[Leaf]:
    """The entries of an area."""
    return machine.leaves(process, area.start, area.start + area.nr_pages * machine.page_size)


# ---- removal


def zap(machine: Machine, process: Process, start: int, end: int) -> list[str]:
    """zap_page_range: clear entries, count them away, drop references and slots; leaves it cuts are split first."""
    notes = split_at_edges(machine, process, start, end)
    for run in list(runs(machine, machine.leaves(process, start, end))):
        _remove(machine, process, run)
    free_entries(machine, process, start, end)
    return notes


def split_at_edges(machine: Machine, process: Process, start: int, end: int) -> list[str]:
    """Split leaves that reach across either end of a range of addresses."""
    notes = []
    for _ in (Level.PUD, Level.PMD):
        for edge in (start, end):
            for leaf in machine.leaves(process, edge, edge + 1):
                if leaf.va < edge:
                    notes += split(machine, process, leaf.va)
    return notes


def _remove(machine: Machine, process: Process, run: Run) -> None:
    va, level, folio, page, n = run
    machine.clear(process, va, n * machine.page_size)
    machine.acct.remove_rmap(folio, process.mm, level, page, n)
    machine.acct.put(folio, _entries(machine, level, n))
    free_unused(machine, folio)


def exit_mm(machine: Machine, process: Process) -> list[str]:
    """exit_mmap, then the mm's id is free again."""
    notes = []
    for area in process.areas.values():
        notes += zap(machine, process, area.start, area.start + area.nr_pages * machine.page_size)
    machine.drop(process)
    return notes


# ---- splits


def split(machine: Machine, process: Process, va: int) -> list[str]:
    """__split_huge_pmd and the PUD's: anonymous leaves become entries one level down, those of files are unmapped."""
    leaf = machine.leaves(process, va, va + 1)[0]
    folio, n, below = leaf.folio, leaf.nr_pages, Level(leaf.level - 1)
    if not folio.is_anon:
        _remove(machine, process, (leaf.va, leaf.level, folio, leaf.page, n))
        return [f"the {leaf.level.name} of {machine.name_of(folio)} is unmapped as a whole, its pages fault in again"]
    count = _entries(machine, below, n)
    exclusive = bool(folio.exclusive[leaf.page])
    acct = machine.acct
    acct.get(folio, count - 1)
    acct.add_anon_rmap(folio, process.mm, below, leaf.page, n, exclusive=exclusive, exempt=True)
    with process.editor.batch():
        machine.clear(process, leaf.va, n * machine.page_size)
        machine.install(process, leaf.va, below, folio, leaf.page, n, leaf.flags)
    acct.remove_rmap(folio, process.mm, leaf.level, leaf.page, n)
    return []


# ---- write faults and pins


def write_fault(machine: Machine, process: Process, va: int) -> list[str]:
    """do_wp_page and do_huge_pmd_wp_page: reuse the page where it is certainly this mm's, else copy one page."""
    acct = machine.acct
    while True:
        leaf = machine.leaves(process, va, va + 1)[0]
        folio = leaf.folio
        reuse = bool(folio.exclusive[leaf.page])
        if not reuse and leaf.level == Level.PMD:
            reuse = acct.wp_can_reuse_pmd(folio, can_free_swap=not machine.swap.is_counted(folio))
        elif not reuse and leaf.level == Level.PTE:
            reuse = acct.wp_can_reuse_anon_folio(folio, can_free_swap=not machine.swap.is_counted(folio))
        if reuse:
            acct.set_exclusive(folio, leaf.level, leaf.page, leaf.nr_pages)
            machine.make_writable(process, leaf.va)
            return [f"reused: {machine.name_of(folio)} stays, writable"]
        if leaf.level == Level.PTE:
            return _copy_page(machine, process, leaf)
        split(machine, process, leaf.va)


def _copy_page(machine: Machine, process: Process, leaf: Leaf) -> list[str]:
    name = machine.name_of(leaf.folio)
    copy = machine.new_folio(machine.unused_name(f"{name}+{leaf.page}'"), 0, Kind.ANON)
    machine.clear(process, leaf.va, machine.page_size)
    machine.acct.get(copy, 1)
    machine.acct.add_new_anon_rmap(copy, process.mm)
    machine.install(process, leaf.va, Level.PTE, copy, 0, 1, WRITTEN)
    machine.acct.remove_rmap(leaf.folio, process.mm, Level.PTE, leaf.page, 1)
    machine.acct.put(leaf.folio, 1)
    free_unused(machine, leaf.folio)
    return [f"copied: page {leaf.page} of {name} to {machine.name_of(copy)}"]


# ---- partially mapped folios


def scan(machine: Machine) -> list[str]:
    """The reclaim-time scan under every model: what it walked, what it left out and why, what it flagged."""
    notes = []

    def mapped(folio: Folio) -> Iterator[tuple[int, int]]:
        for process in machine.processes.values():
            for area in process.areas.values():
                for leaf in leaves_of(machine, process, area):
                    if leaf.folio is folio:
                        yield leaf.page, leaf.nr_pages

    for model in machine.acct.models.values():
        report = scan_partially_mapped(model, list(machine.folios.values()), mapped)
        flagged = ", ".join(machine.name_of(folio) for folio in report.flagged) or "nothing"
        skipped = "".join(f", {n} left out ({why})" for why, n in sorted(report.skipped.items()))
        notes.append(f"{model.name}: {report.walked} walked{skipped}; flagged {flagged}")
    return notes


def deferred_split(machine: Machine, model: str) -> list[str]:
    """deferred_split_scan over one model's queue; a split folio is split for all."""
    assert model in MODELS
    names = {id(folio): name for name, folio in machine.folios.items()}
    report = deferred_split_scan(machine.acct.models[model], lambda folio: split_folio(machine, folio))
    parts = {"split": report.split, "put back": report.requeued, "dropped": report.dropped}
    told = [f"{what} {', '.join(names[id(folio)] for folio in folios)}" for what, folios in parts.items() if folios]
    return [f"{model}: {'; '.join(told) or 'the queue is empty'}"]


def split_folio(machine: Machine, folio: Folio) -> bool:
    """split_folio to order 0: unmap, split, map the parts again; pages that nobody maps are freed.

    Nothing is unmapped where references beyond the mappings (pins) would make the split fail.
    """
    acct, name = machine.acct, machine.name_of(folio)
    if folio.pins or folio.refs != acct.driver.expected_ref_count(folio):
        return False
    kept: list[tuple[Process, Leaf, bool]] = []
    for process in machine.processes.values():
        for area in process.areas.values():
            split_leaves(machine, process, area, folio)
            mine = [leaf for leaf in leaves_of(machine, process, area) if leaf.folio is folio]
            kept += [(process, leaf, bool(folio.exclusive[leaf.page])) for leaf in mine]
    for process, leaf, exclusive in kept:
        if exclusive and folio.exclusive[leaf.page]:
            acct.try_share_anon_rmap(folio, leaf.page)
        machine.clear(process, leaf.va, machine.page_size)
        acct.remove_rmap(folio, process.mm, Level.PTE, leaf.page, 1)
        acct.put(folio, 1)
    parts = acct.split_folio(folio, 0)
    machine.forget(folio)
    for page, part in enumerate(parts):
        machine.enter(f"{name}+{page}", part)
    for process, leaf, exclusive in kept:
        part = parts[leaf.page]
        acct.get(part, 1)
        acct.add_anon_rmap(part, process.mm, Level.PTE, 0, 1, exclusive=exclusive, exempt=True)
        machine.install(process, leaf.va, Level.PTE, part, 0, 1, leaf.flags)
    for part in parts:
        free_unused(machine, part)
    return True


def split_leaves(machine: Machine, process: Process, area: Area, folio: Folio) -> None:
    """Split what maps a folio in an area down to PTEs."""
    for _ in (Level.PUD, Level.PMD):
        for leaf in leaves_of(machine, process, area):
            if leaf.folio is folio and leaf.level != Level.PTE:
                split(machine, process, leaf.va)
