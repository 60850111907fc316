"""The hook: every entry that is written reaches the accounting as mappings added and removed.

A process's TableEditor tells its observer (mmu.editor.Observer) what was written under one page-table lock. The net
change of each entry decides: an entry that maps another page than before adds a mapping, removes one, or both,
additions first; rights, accessed, dirty and contiguous bits move nothing, and neither do moves of entries
(Reason.MOVE). Special entries (zero pages, PFNMAP), migration, hwpoison and marker entries never count, swap entries
count their slot, device-private and device-exclusive entries are mappings. What no entry tells (whether a page is
certainly this mm's alone, whose mapping fork copies) travels with the batch as an Intent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from ..mmu.editor import EntryChange, Reason
from .calls import Accounting
from .errors import Busy, Rejected
from .folio import Folio
from .levels import Level
from .mm_id import Mm
from .views.inputs import PageEntry, State
from .views.tables import ProcessTables, RawEntry

Run = tuple[Folio, Level, int, int]
"""Mappings of one folio at one level: first page, pages."""
_COUNTED = frozenset({State.PRESENT, State.DEVICE_PRIVATE, State.DEVICE_EXCLUSIVE})


@dataclass(frozen=True)
class Intent:
    """What the writer of a batch tells rmap beyond the entries: the flags and the caller of the kernel's rmap call.

    `exclusive` is RMAP_EXCLUSIVE. `source` is the mm whose mappings fork copies (folio_dup_*, folio_try_dup_*).
    `exempt` marks additions that early rejection must let pass: a split, the return from migration, swap-in.

    >>> Intent(exclusive=True).source is None
    True
    """

    exclusive: bool = False
    exempt: bool = False
    source: Mm | None = None


PLAIN = Intent()
"""Nothing to tell."""
EXCLUSIVE = Intent(exclusive=True)
"""RMAP_EXCLUSIVE."""


class CountedFrames(Protocol):
    """The folios behind the frames, the swap slots, and who must know when a folio is no longer used."""

    @property
    def acct(self) -> Accounting:
        """The models."""
        ...

    def folio(self, pfn: int) -> Folio | None:
        """The folio that holds the frame; None for frames without a normal page."""
        ...

    def count_swap(self, swap_type: int, swap_offset: int, n: int) -> None:
        """n more (or fewer) entries refer to a slot: swap_duplicate and swap_free."""
        ...

    def unreferenced(self, folio: Folio) -> None:
        """The last reference was dropped (folio_put)."""
        ...


def mapped_folio(entry: PageEntry, frames: CountedFrames) -> Folio | None:
    """The folio an entry maps as rmap counts it: present pages, device-private and device-exclusive ones."""
    return frames.folio(entry.pfn) if entry.state in _COUNTED and not entry.special else None


def joined(runs: Iterable[Run]) -> Iterator[Run]:
    """PTEs that map neighbouring pages of one folio, as one run: the kernel's batches.

    >>> from .folio import Kind
    >>> folio = Folio(4, Kind.FILE)
    >>> [run[2:] for run in joined([(folio, Level.PTE, 3, 1), (folio, Level.PTE, 4, 1), (folio, Level.PTE, 4, 1)])]
    [(3, 2), (4, 1)]
    """
    now: Run | None = None
    for run in runs:
        if now is not None and run[1] is Level.PTE and run[:3] == (now[0], Level.PTE, now[2] + now[3]):
            now = (*now[:3], now[3] + run[3])
            continue
        if now is not None:
            yield now
        now = run
    if now is not None:
        yield now


class RmapObserver:
    """Keeps the accounting of one process true; stands first among its editor's observers, since it may refuse.

    A refused addition (Rejected, Busy) undoes the whole batch: additions are checked before the first of them counts.
    With `moves_references` each mapping holds a reference of its folio.
    """

    moves_references = True

    def __init__(self, mm: Mm, tables: ProcessTables, frames: CountedFrames) -> None:
        self.mm, self.tables, self.frames = mm, tables, frames

    def __call__(self, batch: Sequence[EntryChange]) -> None:
        intent = batch[0].intent if isinstance(batch[0].intent, Intent) else PLAIN
        added: list[Run] = []
        removed: list[Run] = []
        slots: list[tuple[PageEntry, int]] = []
        for change, old, new in _net(batch):
            if change.reason is Reason.MOVE:
                continue
            before, after = self.entry(change, old), self.entry(change, new)
            slots += [(entry, n) for entry, n in ((before, -1), (after, 1)) if entry and entry.state is State.SWAP]
            was, now = self._run(before), self._run(after)
            if was != now:
                removed += [was] if was else []
                added += [now] if now else []
        self._add_all(list(joined(added)), intent)
        for run in joined(removed):
            self.remove(run)
        for entry, n in sorted(slots, key=lambda slot: -slot[1]):
            self.frames.count_swap(entry.swap_type, entry.swap_offset, n)

    def entry(self, change: EntryChange, raw: int) -> PageEntry | None:
        """What Linux reads from an entry's value; None for an empty one and for one that points at a table."""
        if raw == 0 or self.tables.is_table(change.level, raw):
            return None
        return self.tables.page_entry(RawEntry(change.va, change.level, raw, 0, 0, [raw], {}))

    def _run(self, entry: PageEntry | None) -> Run | None:
        """What rmap counts for an entry: its pages, or for the first entry of a huge page the folio."""
        folio = None if entry is None else mapped_folio(entry, self.frames)
        if entry is None or folio is None:
            return None
        page = entry.pfn - folio.pfn
        if folio.kind.is_hugetlb:
            return (folio, Level.PUD, 0, folio.nr_pages) if page == 0 else None
        return folio, entry.level, page, entry.nr_pages

    # ---- additions

    def _add_all(self, runs: list[Run], intent: Intent) -> None:
        for run in runs if len(runs) > 1 else ():
            self._check(run, intent)
        new = {run[0] for run in runs if run[0].fresh}
        for folio in new:
            self._add_new([run for run in runs if run[0] is folio], intent)
        for run in runs:
            if run[0] not in new:
                self.add(run, intent)

    def _check(self, run: Run, intent: Intent) -> None:
        folio, level, first, n = run
        if not folio.fresh and not folio.kind.is_hugetlb:
            self.frames.acct.driver.check_add(folio, level, first, n, intent.exempt)

    def _add_new(self, runs: list[Run], intent: Intent) -> None:
        """The first mappings of an anonymous folio: as a whole at the kernel's level, or as swap-in would."""
        folio, acct = runs[0][0], self.frames.acct
        whole = folio.kind.is_hugetlb or all(level == acct.driver.new_level(folio) for _, level, _, _ in runs)
        if whole and sum(n for *_, n in runs) == folio.nr_pages:
            self._hold(folio, acct.new_mappings(folio))
            acct.add_new_anon_rmap(folio, self.mm, exclusive=intent.exclusive)
            return
        folio.fresh = False
        for model in acct.live(folio):
            model.count_mthp(model.stats.mthp_nr_anon, folio, 1)
        for run in runs:
            self.add(run, intent)

    def add(self, run: Run, intent: Intent) -> None:
        """Count mappings and take their references; on refusal nothing has changed."""
        held = self._entries(run)
        self._hold(run[0], held)
        try:
            self._count(run, intent)
        except Rejected:
            self._drop(run[0], held)
            raise

    def _count(self, run: Run, intent: Intent) -> None:
        folio, level, first, n = run
        acct = self.frames.acct
        if intent.source is not None:
            self._duplicate(run, intent.source)
        elif folio.kind.is_hugetlb:
            acct.hugetlb_add_rmap(folio, exclusive=intent.exclusive)
        elif folio.is_anon:
            acct.add_anon_rmap(folio, self.mm, level, first, n, exclusive=intent.exclusive, exempt=intent.exempt)
        else:
            acct.add_file_rmap(folio, self.mm, level, first, n, exempt=intent.exempt)

    def _duplicate(self, run: Run, source: Mm) -> None:
        folio, level, first, n = run
        acct = self.frames.acct
        if not folio.is_anon:
            if folio.kind.is_hugetlb:
                acct.hugetlb_add_rmap(folio)
            else:
                acct.dup_file_rmap(folio, self.mm, level, first, n)
            return
        if folio.kind.is_hugetlb:
            failed = acct.hugetlb_try_dup_anon_rmap(folio, source)
        else:
            failed = acct.try_dup_anon_rmap(folio, self.mm, source, level, first, n)
        if failed:
            raise Busy(acct.driver.name, f"pages {first}..{first + n - 1} of {folio!r} may be pinned or are at a limit")

    # ---- removals

    def remove(self, run: Run) -> None:
        """Take mappings away and drop their references."""
        folio, level, first, n = run
        acct = self.frames.acct
        if folio.kind.is_hugetlb:
            acct.hugetlb_remove_rmap(folio)
        else:
            acct.remove_rmap(folio, self.mm, level, first, n)
        self._drop(folio, self._entries(run))
        if self.moves_references and not folio.refs:
            self.frames.unreferenced(folio)

    def _entries(self, run: Run) -> int:
        folio, level, _, n = run
        return 1 if folio.kind.is_hugetlb else n >> self.frames.acct.rules.levels.order(level)

    def _hold(self, folio: Folio, n: int) -> None:
        if self.moves_references:
            self.frames.acct.get(folio, n)

    def _drop(self, folio: Folio, n: int) -> None:
        if self.moves_references:
            self.frames.acct.put(folio, n)


def _net(batch: Sequence[EntryChange]) -> Iterator[tuple[EntryChange, int, int]]:
    """Each entry that was written, by address, with its value before the batch and after it.

    An entry may be cleared and written again under one lock; only what remains of it counts.
    """
    first: dict[int, EntryChange] = {}
    last: dict[int, EntryChange] = {}
    for change in sorted(batch, key=attrgetter("serial")):
        first.setdefault(change.pa, change)
        last[change.pa] = change
    for pa, change in sorted(last.items(), key=lambda item: item[1].va):
        if first[pa].old != change.new:
            yield change, first[pa].old, change.new
