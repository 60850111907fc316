"""The hook as adoption needs it: what entries say is counted, without knowing which operation wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ...arch.errors import InputError
from ...mmu.editor import EntryChange, Reason
from ..errors import Rejected
from ..levels import Level
from ..views.inputs import PageEntry, State
from ..views.tables import RawEntry
from .frames import KernelFrames
from .process import AdoptedProcess, Run, joined, mapped_folio


class EntryObserver:
    """Keeps accounting true for one process by looking at old and new entries alone (mmu.editor.Observer).

    Additions come before removals. An entry that goes on mapping the same page (rights, accessed, dirty, contiguous
    bit) moves nothing. What the models refuse is noted in `process.refused`.
    """

    def __init__(self, process: AdoptedProcess, frames: KernelFrames) -> None:
        self.process, self.frames = process, frames
        self._special = process.tables.linux.software["SPECIAL"].mask

    def __call__(self, batch: Sequence[EntryChange]) -> None:
        added: list[Run] = []
        removed: list[Run] = []
        for change in batch:
            old, new = self._entry(change, change.old), self._entry(change, change.new)
            before, after = self._run(old), self._run(new)
            if before != after:
                removed += [before] if before else []
                added += [after] if after else []
            self._swap(old, -1)
            self._swap(new, 1)
        for run in joined(added):
            self._count(run, add=True)
        for run in joined(removed):
            self._count(run, add=False)

    def _entry(self, change: EntryChange, raw: int) -> PageEntry | None:
        if raw == 0 or (raw & 1 and raw & self._special):  # special entries never count
            return None
        tables = self.process.tables
        table = change.pa & -tables.page_size
        try:
            found = tables.page_entry(RawEntry(change.va, change.level, raw, table, 0, [raw], {}))
        except InputError:  # the process noted it when it was read
            return None
        return found if table not in tables.shared_pmd_tables or not self.frames.seen_shared(found) else None

    def _run(self, entry: PageEntry | None) -> Run | None:
        """What rmap counts for an entry: its pages, or for the first entry of a huge page the folio."""
        folio = None if entry is None else mapped_folio(entry, self.frames)
        if entry is None or folio is None:
            return None
        page = entry.pfn - folio.pfn
        if folio.kind.is_hugetlb:
            return (folio, Level.PUD, 0, folio.nr_pages) if page == 0 else None
        return folio, entry.level, page, entry.nr_pages

    def _swap(self, entry: PageEntry | None, n: int) -> None:
        if entry is not None and entry.state is State.SWAP:
            self.frames.swap_entries[entry.swap_type, entry.swap_offset] += n

    def _count(self, run: Run, *, add: bool) -> None:
        folio, level, first, n = run
        acct, mm = self.frames.acct, self.process.mm
        try:
            if folio.kind.is_hugetlb:
                (acct.hugetlb_add_rmap if add else acct.hugetlb_remove_rmap)(folio)
            elif not add:
                acct.remove_rmap(folio, mm, level, first, n)
            elif folio.is_anon:
                acct.add_anon_rmap(folio, mm, level, first, n)
            else:
                acct.add_file_rmap(folio, mm, level, first, n)
        except Rejected as error:
            self.process.refused.append(str(error))


def installed(process: AdoptedProcess) -> Iterator[list[EntryChange]]:
    """Every entry of a process as if it had just been written into an empty table; one batch for each table."""
    size = process.tables.tree.entry_size
    entries = process.tables.raw(0, process.tables.tree.va_end)
    for table, group in groupby(entries, key=lambda entry: entry.table):
        yield [
            EntryChange(process.name, e.va, e.level, 0, e.raw, Reason.MAP, table + e.index * size, serial)
            for serial, e in enumerate(group)
        ]
