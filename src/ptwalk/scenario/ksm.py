"""KSM: two anonymous pages become one read-only page."""

from __future__ import annotations

from ..mmu.editor import Reason
from ..rmap.folio import Kind
from ..rmap.levels import Level
from .machine import WRITE, Leaf, Machine, Process
from .operations import split_folio
from .swap import free_unused

Place = tuple[Process, int]
"""A process and the address of one of its pages."""


def merge(machine: Machine, kept: Place, given: Place) -> list[str]:
    """try_to_merge_two_pages: large folios are split, the first page becomes KSM's, the second entry maps it.

    Other mappings of the first page map the KSM page too, those of the second keep theirs. Pages that may be pinned
    stay as they are; a first page that was write-protected by then stays so until it is written.
    """
    for process, va in (kept, given):
        folio = machine.leaves(process, va, va + 1)[0].folio
        if folio.is_large and not split_folio(machine, folio):
            return [f"-EAGAIN: {machine.name_of(folio)} may be pinned and is not split"]
    for place in (kept, given):
        if not _write_protect(machine, place):
            return [f"-EAGAIN: {machine.name_of(_leaf(machine, place).folio)} may be pinned and is not merged"]
    acct, page, old = machine.acct, _leaf(machine, kept).folio, _leaf(machine, given).folio
    page.kind = Kind.KSM
    process, va = given
    name = machine.name_of(old)
    acct.get(page, 1)
    acct.add_anon_rmap(page, process.mm, Level.PTE, 0, 1)
    machine.clear(process, va, machine.page_size, Reason.MERGE)
    machine.install(process, va, Level.PTE, page, 0, 1, _leaf(machine, kept).flags, Reason.MERGE)
    acct.remove_rmap(old, process.mm, Level.PTE, 0, 1)
    acct.put(old, 1)
    free_unused(machine, old)
    return [f"{process.name} maps {machine.name_of(page)} in place of {name}"]


def _leaf(machine: Machine, place: Place) -> Leaf:
    process, va = place
    return machine.leaves(process, va, va + 1)[0]


def _write_protect(machine: Machine, place: Place) -> bool:
    """write_protect_page: clear, share, map again read-only; false, and nothing changed, where pins are possible."""
    process, va = place
    leaf = _leaf(machine, place)
    folio, acct = leaf.folio, machine.acct
    machine.clear(process, va, machine.page_size, Reason.PROTECT)
    pinned = folio.pins > 0 or folio.refs != acct.driver.expected_ref_count(folio)
    failed = pinned or (folio.exclusive[0] and acct.try_share_anon_rmap(folio, 0))
    flags = leaf.flags if failed else leaf.flags & ~WRITE
    machine.install(process, va, Level.PTE, folio, 0, 1, flags, Reason.PROTECT)
    return not failed
