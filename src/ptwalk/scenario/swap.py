"""Swap entries in the page tables: what fork, unmapping, moves and the recount do with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..arch.linux import LinuxFlags
from ..mmu.editor import Reason
from ..rmap.folio import Folio
from ..rmap.views.inputs import State
from .machine import Machine, Process


@dataclass(frozen=True)
class SwapEntry:
    """A swap entry: its address, its slot, and the exclusive bit."""

    va: int
    slot: int
    exclusive: bool


def swap_entries(machine: Machine, process: Process, start: int, end: int) -> list[SwapEntry]:
    """The swap entries of a range of addresses."""
    linux = process.editor.linux
    assert linux is not None
    found = []
    for raw in process.tables.raw(start, end):
        entry = process.tables.page_entry(raw)
        if entry.state is State.SWAP:
            flags = linux.decode(raw.level.number, raw.raw).flags
            found.append(SwapEntry(raw.va, entry.swap_offset, LinuxFlags.EXCLUSIVE in flags))
    return found


def write_entry(process: Process, entry: SwapEntry, reason: Reason) -> None:
    """Write a swap entry into a table of PTEs."""
    linux = process.editor.linux
    assert linux is not None
    flags = LinuxFlags.EXCLUSIVE if entry.exclusive else LinuxFlags.NONE
    with process.editor.batch():
        process.editor.write(process.editor.ensure(entry.va), linux.swap(0, entry.slot, flags), reason)


def copy_entries(machine: Machine, src: Process, dst: Process, start: int, end: int) -> None:
    """copy_nonpresent_pte: the slot is counted once more, and neither entry is exclusive any longer."""
    for entry in swap_entries(machine, src, start, end):
        machine.swap.duplicate(entry.slot)
        shared = SwapEntry(entry.va, entry.slot, False)
        if entry.exclusive:
            write_entry(src, shared, Reason.FORK)
        write_entry(dst, shared, Reason.FORK)


def free_entries(machine: Machine, process: Process, start: int, end: int) -> None:
    """zap_nonpresent_ptes: swap entries are cleared and their slots counted down."""
    for entry in swap_entries(machine, process, start, end):
        machine.clear(process, entry.va, machine.page_size)
        folio = cached(machine, entry.slot)
        machine.swap.drop(entry.slot)
        if folio is not None:
            free_swap(machine, folio)


def cached(machine: Machine, slot: int) -> Folio | None:
    """The folio in the swap cache that holds a slot."""
    pfn = machine.swap.frames.get(slot)
    return None if pfn is None else machine.folio(pfn)


def free_swap(machine: Machine, folio: Folio) -> None:
    """folio_free_swap: a folio to whose slots no entry refers leaves the swap cache."""
    if folio.in_swapcache and not machine.swap.is_counted(folio):
        leave_cache(machine, folio)


def leave_cache(machine: Machine, folio: Folio) -> None:
    """The folio leaves the swap cache; it is freed if nothing else references it."""
    machine.swap.leave(folio)
    machine.acct.set_swapcache(folio, False)
    free_unused(machine, folio)


def free_unused(machine: Machine, folio: Folio) -> None:
    """An anonymous folio that nothing references any more is freed; its counters must be at their first values."""
    if folio.is_anon and not folio.refs and not folio.pins:
        machine.acct.free(folio)
        machine.forget(folio)


def recount_problems(machine: Machine) -> list[str]:
    """Recount the slots from the page tables alone: a sentence for each that disagrees."""
    counts: Counter[int] = Counter()
    exclusive: set[int] = set()
    for process in machine.processes.values():
        for vma in process.vmas():
            for entry in swap_entries(machine, process, vma.start, vma.end):
                counts[entry.slot] += 1
                if entry.exclusive:
                    exclusive.add(entry.slot)
    slots = sorted(counts.keys() | machine.swap.counts.keys())
    wrong = [
        f"swap slot {slot} is counted {machine.swap.counts.get(slot, 0)} times, {counts[slot]} entries refer to it"
        for slot in slots
        if counts[slot] != machine.swap.counts.get(slot, 0)
    ]
    return wrong + [
        f"swap slot {slot} has an exclusive entry and {counts[slot] - 1} others"
        for slot in sorted(exclusive)
        if counts[slot] > 1
    ]
