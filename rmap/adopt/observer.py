"""The hook as adoption needs it: what entries say is counted, without knowing which operation wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ...arch.errors import InputError
from ...mmu.editor import EntryChange, Reason
from ..errors import Rejected
from ..observer import Intent, RmapObserver, Run
from ..views.inputs import PageEntry
from ..views.tables import RawEntry
from .frames import KernelFrames
from .process import AdoptedProcess


class EntryObserver(RmapObserver):
    """The hook of a captured process. What the models refuse is noted in `process.refused` and counted nowhere.

    References do not move: a captured folio holds those that nobody here sees, or none where they were not captured.
    """

    moves_references = False

    def __init__(self, process: AdoptedProcess, frames: KernelFrames) -> None:
        super().__init__(process.mm, process.tables, frames)
        self.process, self.kernel_frames = process, frames
        self._special = process.tables.linux.software["SPECIAL"].mask

    def entry(self, change: EntryChange, raw: int) -> PageEntry | None:
        """As for any process, but an entry that Linux cannot read was noted when it was read, and does not count."""
        if raw == 0 or (raw & 1 and raw & self._special) or self.tables.is_table(change.level, raw):
            return None
        table = change.pa & -self.tables.page_size
        try:
            found = self.tables.page_entry(RawEntry(change.va, change.level, raw, table, 0, [raw], {}))
        except InputError:
            return None
        return (
            found if table not in self.tables.shared_pmd_tables or not self.kernel_frames.seen_shared(found) else None
        )

    def _check(self, run: Run, intent: Intent) -> None:
        """Nothing is refused as a whole."""

    def add(self, run: Run, intent: Intent) -> None:
        """Count mappings, or note why not."""
        try:
            super().add(run, intent)
        except Rejected as error:
            self.process.refused.append(str(error))

    def remove(self, run: Run) -> None:
        """Take mappings away, or note why not."""
        try:
            super().remove(run)
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
