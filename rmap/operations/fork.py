"""fork: which areas are copied, how mappings are duplicated, and what becomes of pages that may be pinned."""

from __future__ import annotations

from ...arch.errors import InputError
from ...arch.linux import LinuxFlags
from ...mmu.editor import Reason
from ..errors import Busy
from ..folio import Kind
from ..levels import Level
from ..observer import EXCLUSIVE, Intent
from ..space.area import Area
from ..space.process import WRITE, Process, Run
from ..space.system import System
from .device import restore_exclusive
from .entries import copy_nonpresent, write_protect
from .fault import anon
from .unmap import exit_mm, split

_NOT_INHERITED = LinuxFlags.YOUNG | LinuxFlags.UFFD_WP
MAX_COPIES = 1 << 16
"""Pages of one mapping that may be pinned and that fork still copies."""


def fork(system: System, src: Process, name: str, files: bool) -> list[str]:
    """copy_page_range of every area that is copied (vma_needs_copy): those with private pages, others with `files`.

    What may be pinned is copied for the child; at the soft limit fork fails with -ENOMEM and the child is gone.
    InputError where more pages than MAX_COPIES would have to be.
    """
    dst = system.process(name)
    notes: list[str] = []
    for key, area in src.areas.items():
        dst.areas[key] = area.copy()
        if not (_needs_copy(area) or files):
            continue
        restore_exclusive(src, area.start, area.end)
        for run in src.runs(area.start, area.end, alike=True):
            failed = _copy_run(system, src, dst, run, area, notes)
            if failed:
                exit_mm(system, dst)
                return [failed]
        copy_nonpresent(src, dst, area.start, area.end)
    return notes


def _needs_copy(area: Area) -> bool:
    return area.file is None or area.anon_vma


def _copy_run(system: System, src: Process, dst: Process, run: Run, area: Area, notes: list[str]) -> str:
    if run.folio.kind.is_hugetlb:
        return _copy_huge(system, src, dst, run, area, notes)
    entries = run.nr_pages >> system.levels.order(run.level)
    if system.acct.may_map(run.folio, run.level) < entries:
        return f"-ENOMEM: {dst.name} is not created, {system.name_of(run.folio)} is at the soft limit"
    if _duplicate(src, dst, run, area):
        return ""
    name = system.name_of(run.folio)
    if run.nr_pages > MAX_COPIES:
        exit_mm(system, dst)
        text = f"{name} may be pinned, and more than {MAX_COPIES} pages are not copied one by one"
        raise InputError(text, field="pages", value=run.nr_pages)
    if run.level != Level.PTE:
        split(system, src, run.va)
        notes.append(f"{name} may be pinned: {src.name}'s {run.level.name} is split")
        end = run.va + run.nr_pages * src.page_size
        for part in src.runs(run.va, end, alike=True):
            failed = _copy_run(system, src, dst, part, area, notes)
            if failed:
                return failed
        return ""
    _copy_pinned(system, src, dst, run, area, notes)
    return ""


def _copy_huge(system: System, src: Process, dst: Process, run: Run, area: Area, notes: list[str]) -> str:
    """copy_hugetlb_page_range: a page that may be pinned is copied as a whole."""
    if not _duplicate(src, dst, run, area):
        name = system.name_of(run.folio)
        copy = system.new_folio(system.unused_name(f"{name}'"), run.folio.order, Kind.HUGETLB_ANON)
        with dst.editor.batch(EXCLUSIVE):
            dst.install_huge(run.va, copy, run.flags, Reason.FORK)
        notes.append(f"{name} may be pinned: copied for {dst.name}")
    return ""


def _copy_pinned(system: System, src: Process, dst: Process, run: Run, area: Area, notes: list[str]) -> None:
    """copy_present_page: page by page, those that fork must not share are copied for the child."""
    name = system.name_of(run.folio)
    for start, pages, _ in list(run.folio.exclusive.runs(run.page, run.nr_pages)):
        va = run.va + (start - run.page) * src.page_size
        if _duplicate(src, dst, Run(va, Level.PTE, run.folio, start, pages, run.flags, run.state), area):
            continue
        for at in range(pages):
            copy = system.new_folio(system.unused_name(f"{name}+{start + at}'"), 0, Kind.ANON)
            anon(system, dst, va + at * dst.page_size, copy)
        notes.append(f"pages {start}..{start + pages - 1} of {name} may be pinned: copied for {dst.name}")


def _duplicate(src: Process, dst: Process, run: Run, area: Area) -> bool:
    """folio_try_dup_anon_rmap or folio_dup_file_rmap, both read-only then; false, nothing changed, on -EBUSY.

    The child's entries are old and not write-protected by userfaultfd; those of a shared mapping are clean too.
    """
    flags = run.flags & ~(WRITE if area.is_cow else LinuxFlags.DIRTY) & ~_NOT_INHERITED
    try:
        with dst.editor.batch(Intent(source=src.mm)):
            dst.install_like(run, run.va, flags, Reason.FORK)
    except Busy:
        return False
    if WRITE in run.flags and area.is_cow:
        with src.editor.batch():
            for leaf in src.leaves(run.va, run.va + run.nr_pages * src.page_size):
                write_protect(src, leaf, Reason.FORK)
    return True
