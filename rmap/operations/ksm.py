"""KSM: two anonymous pages become one read-only page."""

from __future__ import annotations

from ...mmu.editor import Reason
from ..folio import Kind
from ..levels import Level
from ..space.process import WRITE, Process
from ..space.system import System
from .migrate import is_busy, split_folio

Place = tuple[Process, int]
"""A process and the address of one of its pages."""


def merge(system: System, kept: Place, given: Place) -> list[str]:
    """try_to_merge_two_pages: large folios are split, the first page becomes KSM's, the second entry maps it.

    Other mappings of the first page map the KSM page too, those of the second keep theirs. Pages that may be pinned
    stay as they are; a first page that was write-protected by then stays so until it is written.
    """
    for process, va in (kept, given):
        folio = process.leaf(va).folio
        if folio.is_large and not split_folio(system, folio):
            return [f"-EAGAIN: {system.name_of(folio)} may be pinned and is not split"]
    for process, va in (kept, given):
        if not _write_protect(system, process, va):
            return [f"-EAGAIN: {system.name_of(process.leaf(va).folio)} may be pinned and is not merged"]
    first, (process, va) = kept[0].leaf(kept[1]), given
    page, name = first.folio, system.name_of(process.leaf(va).folio)
    page.kind = Kind.KSM
    process.unfold(va, va + process.page_size)
    process.install(va, Level.PTE, page, 0, 1, first.flags, Reason.MERGE)
    return [f"{process.name} maps {system.name_of(page)} in place of {name}"]


def _write_protect(system: System, process: Process, va: int) -> bool:
    """write_protect_page: read-only and no longer exclusive; false, and nothing changed, where pins are possible."""
    leaf = process.leaf(va)
    if is_busy(system, leaf.folio) or (leaf.folio.exclusive[0] and system.acct.try_share_anon_rmap(leaf.folio, 0)):
        return False
    process.rewrite(va, clear=WRITE)
    return True
