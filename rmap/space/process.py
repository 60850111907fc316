"""A process: its areas and its page tables, whose entries are written through the table editor and counted by rmap."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from ...arch.errors import InputError, PtwalkError
from ...arch.linux import EntryKind, Linux, LinuxEntry, LinuxFlags
from ...mmu.editor import Reason, Slot, TableEditor
from ..folio import Folio
from ..levels import Level
from ..mm_id import Mm
from ..observer import RmapObserver, mapped_folio
from ..views.inputs import PageEntry, State, Vma
from ..views.live import LiveProcess
from ..views.tables import CONT_PTES, ProcessTables
from .area import Area

if TYPE_CHECKING:
    from .system import System

WRITE = LinuxFlags.WRITE
READ = LinuxFlags.YOUNG
"""The flags of an entry after a read fault."""
WRITTEN = LinuxFlags.WRITE | LinuxFlags.DIRTY | LinuxFlags.YOUNG
"""The flags of an entry after a write fault."""

_FLAGS = (
    (LinuxFlags.DIRTY, attrgetter("dirty")),
    (LinuxFlags.YOUNG, attrgetter("young")),
    (LinuxFlags.SOFT_DIRTY, attrgetter("soft_dirty")),
    (LinuxFlags.UFFD_WP, attrgetter("uffd_wp")),
)


@dataclass(frozen=True)
class Leaf:
    """One entry that rmap counts: where it stands and what it maps.

    `page` is the folio's first page it maps. `flags` are WRITE, DIRTY, YOUNG, SOFT_DIRTY and UFFD_WP as far as set;
    `state` is PRESENT, DEVICE_PRIVATE or DEVICE_EXCLUSIVE.
    """

    va: int
    level: Level
    folio: Folio
    page: int
    nr_pages: int
    flags: LinuxFlags
    state: State = State.PRESENT

    @property
    def write(self) -> bool:
        """pte_write."""
        return LinuxFlags.WRITE in self.flags


class Run(Leaf):
    """Entries that one rmap call counts: PTEs of one folio in one page table, with the first one's flags."""


@dataclass(frozen=True)
class NonPresent:
    """One entry that rmap does not count and that is not empty: swap, migration, hwpoison, marker, zero page."""

    va: int
    level: Level
    entry: LinuxEntry


class Process:
    """A process: its mm id, its areas, its page tables (written through a TableEditor only).

    Satisfies views.inputs.MappedProcess.
    """

    def __init__(self, name: str, mm: Mm, editor: TableEditor, tables: ProcessTables, system: System) -> None:
        self.name, self.mm, self.editor, self.tables, self.system = name, mm, editor, tables, system
        self.page_size = system.page_size
        self.areas: dict[str, Area] = {}
        self._view = LiveProcess(name, tables, self.vmas)
        self.observer = RmapObserver(mm, tables, system)
        editor.observers.append(self.observer)

    @property
    def linux(self) -> Linux:
        """Linux's reading of the entries."""
        return self.tables.linux

    def vmas(self) -> Collection[Vma]:
        """The VMAs in ascending order."""
        return [vma for area in sorted(self.areas.values(), key=lambda area: area.start) for vma in area.vmas()]

    def area(self, va: int) -> Area:
        """The area that holds an address."""
        for area in self.areas.values():
            if area.start <= va < area.end:
                return area
        raise PtwalkError(f"the address {va:#018x} lies in no area of {self.name}")

    # ---- reading entries

    def entries(self, start: int, end: int) -> Iterator[PageEntry]:
        """The entries of a range that are not empty."""
        return self._view.entries(start, end)

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that a table of PTEs covers."""
        return self.tables.pte_tables(start, end)

    def leaves(self, start: int, end: int) -> list[Leaf]:
        """The entries that rmap counts and that map any part of a range of addresses, ascending."""
        found = []
        for entry in self.entries(start, end):
            folio = mapped_folio(entry, self.system)
            if folio is not None:
                flags = WRITE if entry.write or self._device_write(entry) else LinuxFlags.NONE
                for flag, is_set in _FLAGS:
                    flags |= flag if is_set(entry) else LinuxFlags.NONE
                page = entry.pfn - folio.pfn
                found.append(Leaf(entry.va, entry.level, folio, page, entry.nr_pages, flags, entry.state))
        return found

    def _device_write(self, entry: PageEntry) -> bool:
        if entry.state is not State.DEVICE_PRIVATE:
            return False
        slot = self.editor.lookup(entry.va)
        return self.linux.decode(slot.level.number, self.editor.read(slot)).kind is EntryKind.DEVICE_PRIVATE_WRITE

    def leaf(self, va: int) -> Leaf:
        """The entry that maps an address."""
        return self.leaves(va, va + 1)[0]

    def nonpresent(self, start: int, end: int) -> list[NonPresent]:
        """The entries of a range that are neither empty nor counted, ascending."""
        found = []
        for raw in self.tables.raw(start, end):
            entry = self.tables.page_entry(raw)
            if mapped_folio(entry, self.system) is None:
                found.append(NonPresent(raw.va, entry.level, self.linux.decode(raw.level.number, raw.raw)))
        return found

    def runs(self, start: int, end: int, *, alike: bool = False) -> list[Run]:
        """Entries grouped as the kernel batches them; `alike` cuts where their flags change (fork)."""
        leaves = self.leaves(start, end)
        groups = [list(group) for _, group in groupby(leaves, key=lambda leaf: leaf.flags)] if alike else [leaves]
        return [run for group in groups for run in self._joined(group)]

    def _joined(self, leaves: list[Leaf]) -> Iterator[Run]:
        table = self.system.levels.size(Level.PMD) * self.page_size
        now: Run | None = None
        for leaf in leaves:
            if now is not None:
                end = now.va + now.nr_pages * self.page_size
                joins = leaf.level == now.level == Level.PTE and leaf.folio is now.folio and leaf.state is now.state
                if joins and leaf.va == end and end % table and leaf.page == now.page + now.nr_pages:
                    now = Run(now.va, now.level, now.folio, now.page, now.nr_pages + 1, now.flags, now.state)
                    continue
                yield now
            now = Run(leaf.va, leaf.level, leaf.folio, leaf.page, leaf.nr_pages, leaf.flags, leaf.state)
        if now is not None:
            yield now

    # ---- writing entries

    def install(
        self,
        va: int,
        level: Level,
        folio: Folio,
        page: int,
        n: int,
        flags: LinuxFlags,
        reason: Reason = Reason.FAULT,
    ) -> None:
        """Write the entries that map n pages of a folio at `level`; a full block of arm64 PTEs is folded.

        An empty table that stands where a larger leaf shall is freed; InputError where it is not empty.
        """
        with self.editor.batch():
            for at, raw in self.leaf_entries(va, level, folio, page, n, flags):
                slot = self.editor.ensure(at, int(level))
                if self.tables.is_table(slot.level, self.editor.read(slot)):
                    self._free_empty(slot)
                self.editor.write(slot, raw, reason)

    def leaf_entries(
        self, va: int, level: Level, folio: Folio, page: int, n: int, flags: LinuxFlags
    ) -> Iterator[tuple[int, int]]:
        """(address, value) of the entries that map n pages of a folio at a level."""
        size, number = self.system.levels.size(level), self.editor.level(va, int(level)).number
        for at in range(page, page + n, size):
            where = va + (at - page) * self.page_size
            raw = self.linux.page(number, folio.pfn + at, flags | LinuxFlags.USER)
            if level == Level.PTE and self._folds(where, folio, at, page, page + n):
                raw = self.linux.set(number, raw, LinuxFlags.CONTIG)
            yield where, raw

    def put_table(self, va: int, level: Level, entries: Iterable[tuple[int, int]], reason: Reason) -> None:
        """An entry at `level` gives way to a table that holds these entries: filled first, then linked."""
        with self.editor.batch():
            slot, table = self.editor.ensure(va, int(level)), self.editor.new_table()
            below = self.editor.level(va, int(level) - 1)
            for at, raw in entries:
                self.editor.write(self.editor.slot_in(table, below, at), raw, reason)
            self.editor.link(slot, table, reason)

    def _free_empty(self, slot: Slot) -> None:
        if any(self.editor.read(below) for below in self.editor.table_slots(slot)):
            raise InputError("smaller entries are in the way of a larger leaf", field="va", value=f"{slot.va:#018x}")
        self.editor.free_table(self.editor.unlink(slot))

    def free_table(self, va: int) -> None:
        """Unlink and free the empty table of PTEs that translates an address."""
        with self.editor.batch():
            slot = next(slot for slot in self.editor.path(va) if slot.level is self.editor.level(va, int(Level.PMD)))
            self._free_empty(slot)

    def free_tables(self, start: int, end: int) -> None:
        """free_pgtables: unlink and free every empty table that translates any address of a range."""
        self.editor.prune(start, end)

    def install_huge(self, va: int, folio: Folio, flags: LinuxFlags, reason: Reason = Reason.FAULT) -> None:
        """set_huge_pte_at: all entries of one hugetlb page, contiguous where it has several; counted once."""
        levels = self.system.levels
        level = max(one for one in Level if levels.order(one) <= folio.order)
        number = self.editor.level(va, int(level)).number
        contig = folio.order != levels.order(level)
        with self.editor.batch():
            for page in range(0, folio.nr_pages, levels.size(level)):
                raw = self.linux.page(number, folio.pfn + page, flags | LinuxFlags.USER)
                raw = self.linux.set(number, raw, LinuxFlags.CONTIG) if contig else raw
                self.put_entry(va + page * self.page_size, raw, reason, level)

    def install_like(self, run: Leaf, va: int, flags: LinuxFlags, reason: Reason) -> None:
        """Map at `va` what a run maps: present entries, those of a hugetlb page, or device-private ones."""
        if run.folio.kind.is_hugetlb:
            self.install_huge(va, run.folio, flags, reason)
        elif run.state is State.DEVICE_PRIVATE:
            self.install_device_private(va, run.folio, run.page, run.nr_pages, flags, reason)
        else:
            self.install(va, run.level, run.folio, run.page, run.nr_pages, flags, reason)

    def install_device_private(
        self, va: int, folio: Folio, page: int, n: int, flags: LinuxFlags, reason: Reason
    ) -> None:
        """Device-private PTEs for n pages of a folio; of `flags` WRITE picks the kind, soft bits are kept."""
        kind = EntryKind.DEVICE_PRIVATE_WRITE if WRITE in flags else EntryKind.DEVICE_PRIVATE_READ
        kept = flags & (LinuxFlags.SOFT_DIRTY | LinuxFlags.UFFD_WP)
        with self.editor.batch():
            for at in range(n):
                self.put_entry(
                    va + at * self.page_size, self.linux.pfn_entry(kind, folio.pfn + page + at, kept), reason
                )

    def put_entry(self, va: int, raw: int, reason: Reason, level: Level = Level.PTE) -> None:
        """Write a raw entry at a level, tables allocated as needed."""
        with self.editor.batch():
            self.editor.write(self.editor.ensure(va, int(level)), raw, reason)

    @property
    def block(self) -> int:
        """Entries of a contpte block; 1 where the architecture has none."""
        return CONT_PTES[self.page_size.bit_length() - 1] if self.system.arch == "arm64" else 1

    def _folds(self, va: int, folio: Folio, page: int, first: int, end: int) -> bool:
        """Whether a PTE belongs to a contpte block that is installed as a whole."""
        block = self.block
        start = page - (va // self.page_size) % block
        return block > 1 and first <= start and start + block <= end and (folio.pfn + start) % block == 0

    def rewrite(
        self,
        va: int,
        *,
        set_: LinuxFlags = LinuxFlags.NONE,
        clear: LinuxFlags = LinuxFlags.NONE,
        reason: Reason = Reason.PROTECT,
    ) -> None:
        """Set and clear flags of the entry that decides about an address; rmap counts nothing."""
        slot = self.editor.lookup(va)
        raw = self.linux.clear(slot.level.number, self.editor.read(slot), clear)
        self.editor.write(slot, self.linux.set(slot.level.number, raw, set_), reason)

    def rewrite_leaf(self, leaf: Leaf, *, set_: LinuxFlags, clear: LinuxFlags, reason: Reason) -> None:
        """Set and clear flags of every entry that a leaf has: several where a hugetlb page is contiguous."""
        with self.editor.batch():
            end = leaf.va + leaf.nr_pages * self.page_size if leaf.folio.kind.is_hugetlb else leaf.va + 1
            for slot in list(self.editor.slots(leaf.va, end)):
                self.rewrite(slot.va, set_=set_, clear=clear, reason=reason)

    def clear(self, va: int, nr_bytes: int, reason: Reason = Reason.UNMAP) -> None:
        """Clear the entries of a range, contpte blocks that it cuts unfolded first; tables stay."""
        self.unfold(va, va + nr_bytes)
        with self.editor.batch():
            for slot in list(self.editor.slots(va, va + nr_bytes)):
                self.editor.write(slot, 0, reason)

    def unfold(self, start: int, end: int) -> None:
        """contpte_unfold: blocks of contiguous PTEs that either end of a range cuts lose the bit."""
        size = self.block * self.page_size
        for edge in {start, end} if self.block > 1 else ():
            low = edge // size * size
            with self.editor.batch():
                for slot in list(self.editor.slots(low, low + size)) if edge != low else ():
                    flags = self.linux.decode(slot.level.number, self.editor.read(slot)).flags
                    if LinuxFlags.CONTIG in flags:
                        self.rewrite(slot.va, clear=LinuxFlags.CONTIG, reason=Reason.UNFOLD)

    def folded(self, start: int, end: int) -> int:
        """How many entries of a range carry the contiguous bit."""
        entries = self.tables.raw(start, end)
        return sum(LinuxFlags.CONTIG in self.linux.decode(entry.level.number, entry.raw).flags for entry in entries)
