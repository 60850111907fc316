"""The table editor: the one place that writes page-table entries, and tells observers what changed.

Changes made inside `with editor.batch(...)` are those made under one page-table lock. Observers hear of a batch when it
ends, additions before removals: a PMD split adds 512 PTE mappings before it drops the PMD's, as the kernel counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from ..arch.errors import InputError
from ..arch.linux import DEVICE_EXCLUSIVE_KINDS, DEVICE_PRIVATE_KINDS, MAPPED_KINDS, Linux
from .frames import FrameAllocator
from .hardware_entries import entries_for
from .memory import Memory
from .regime import EntryType, Regime, Tree
from .walk import Level

_COUNTED_KINDS = MAPPED_KINDS | DEVICE_PRIVATE_KINDS | DEVICE_EXCLUSIVE_KINDS


class Reason(Enum):
    """Why an entry changed; the kernel operation that asked for it."""

    MAP = "map"
    UNMAP = "unmap"
    PROTECT = "protect"
    ACCESS = "access"  # accessed and dirty bits, by the processor or by reclaim
    SPLIT = "split"
    COLLAPSE = "collapse"
    FOLD = "fold"  # arm64: contiguous bit set on a block of entries
    UNFOLD = "unfold"
    MOVE = "move"
    FORK = "fork"
    FAULT = "fault"
    COPY = "copy on write"
    SWAP = "swap"
    MIGRATE = "migrate"
    MERGE = "merge"  # KSM
    DEVICE = "device"
    MARKER = "marker"
    POISON = "hwpoison"
    TABLE = "table"  # a table was linked or unlinked
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class EntryChange:
    """One entry written: `old` became `new` in the entry at physical address `pa`, which translates from `va` on.

    `serial` numbers the writes of an editor in the order in which memory saw them. `broke` is the reason why the entry
    was made invalid in between (arm64's break-before-make, Arm ARM D8.16.1), or nothing. `intent` is what the writer of
    the batch tells observers beyond the entry (rmap.observer.Intent), None where it tells nothing.
    """

    space: str
    va: int
    level: Level
    old: int
    new: int
    reason: Reason
    pa: int
    serial: int
    broke: str = ""
    intent: object = None


Observer = Callable[[Sequence[EntryChange]], None]
"""Called with the changes of one batch, additions first, removals last, otherwise in the order of writing.

An observer that raises refuses the batch: its writes are undone and observers behind it hear nothing. One that may
refuse therefore stands before those that only listen.
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry of a table: its address, its level, and the lowest address it translates."""

    pa: int
    level: Level
    va: int

    @property
    def size(self) -> int:
        """Bytes of virtual addresses that the entry translates."""
        return 1 << self.level.shift


class TableEditor:
    """Reads and writes the page tables of one address space.

    `space` names it in changes. With `linux`, entries that the hardware refuses but Linux counts as mappings
    (PROT_NONE, device-private ...) are known as such. Tables that the editor links come from `frames` and are zeroed.

    >>> from .memory import PhysicalMemory
    >>> from .machine import regime_from_registers
    >>> memory = PhysicalMemory()
    >>> _ = memory.add_ram(0, 1 << 20)
    >>> regime = regime_from_registers("x86_64", {"CR3": 0x1000}, {})
    >>> editor = TableEditor(memory, regime, FrameAllocator(0x2000, 0x9000))
    >>> editor.observers.append(lambda batch: print([(c.level.linux_name, hex(c.new), c.reason.value) for c in batch]))
    >>> with editor.batch():
    ...     old = editor.write(editor.ensure(0x7000, depth=0), 0x5067, Reason.MAP)
    [('PTE', '0x5067', 'map'), ('PGD', '0x2027', 'table'), ('PUD', '0x3027', 'table'), ('PMD', '0x4027', 'table')]
    """

    def __init__(
        self, memory: Memory, regime: Regime, frames: FrameAllocator, *, space: str = "", linux: Linux | None = None
    ) -> None:
        self.memory, self.regime, self.frames, self.space, self.linux = memory, regime, frames, space, linux
        self.entries = entries_for(regime)
        self._trees = regime.trees
        self.observers: list[Observer] = []
        self._batch: list[EntryChange] | None = None
        self._intent: object = None
        self._taken: list[int] = []  # frames allocated in the open batch
        self._freed: list[int] = []  # frames to return when it ends
        self._serial = 0
        for tree in self._trees:
            size = max((level.entries * tree.entry_size for level in tree.levels[1:]), default=0)
            if size > frames.page_size or tree.entry_size > 8:
                text = f"a table of {tree.register} does not fit a frame of {frames.page_size:#x} bytes"
                raise InputError(text, field="page_size", value=size)

    # ---- the one place that writes

    def write(self, slot: Slot, new: int, reason: Reason) -> int:
        """Write an entry, tell the observers when the batch ends (at once outside of one), return the old value.

        Where the architecture forbids the change of a live entry, the entry is invalid in between: break, then make.
        """
        with self.batch():
            return self._write(slot, new, reason)

    def _write(self, slot: Slot, new: int, reason: Reason) -> int:
        size = self.tree(slot.va).entry_size
        old = self.memory.read_uint(slot.pa, size)
        if old == new:
            return old
        broke = self.entries.needs_break(slot.level, old, new) if old and new else ""
        if broke:
            self.memory.write_uint(slot.pa, 0, size)
        self.memory.write_uint(slot.pa, new, size)
        self._serial += 1
        assert self._batch is not None
        self._batch.append(
            EntryChange(self.space, slot.va, slot.level, old, new, reason, slot.pa, self._serial, broke, self._intent)
        )
        return old

    @contextmanager
    def batch(self, intent: object = None) -> Iterator[None]:
        """Changes made inside form one batch; a batch inside another joins it and its intent.

        An exception, from inside or from an observer that refuses, undoes the batch's writes.
        """
        if self._batch is not None:
            yield
            return
        self._batch, self._intent = [], intent
        try:
            yield
            if self._batch:
                self._tell(self._batch)
        except BaseException:
            self._roll_back()
            raise
        freed = self._freed
        self._end()
        for pa in freed:
            self.frames.free(pa)

    def _roll_back(self) -> None:
        taken = self._taken
        for change in reversed(self._batch or []):
            self.memory.write_uint(change.pa, change.old, self.tree(change.va).entry_size)
        self._end()
        for pa in reversed(taken):
            self.frames.free(pa)

    def _end(self) -> None:
        self._batch, self._intent, self._taken, self._freed = None, None, [], []

    def _tell(self, changes: list[EntryChange]) -> None:
        if self.observers:
            told = sorted(changes, key=self._turn)
            for observer in self.observers:
                observer(told)

    def announce(self, changes: Sequence[EntryChange], counted_by: Observer) -> None:
        """Tell of entries that a kernel wrote in place and counted for one observer, who is not told again.

        `changes` have serials from `reserve`. Nobody can refuse them any more.
        """
        for observer in self.observers:
            if observer is not counted_by and changes:
                observer(sorted(changes, key=self._turn))

    def reserve(self, n: int) -> int:
        """The first of n serials for entries written in place."""
        first, self._serial = self._serial + 1, self._serial + n
        return first

    def _turn(self, change: EntryChange) -> int:
        """0 for what adds a mapping, 2 for what removes one, 1 for the rest."""
        before, after = self.maps(change.level, change.old), self.maps(change.level, change.new)
        return 1 if before == after else 0 if after else 2

    def maps(self, level: Level, raw: int) -> bool:
        """Whether an entry maps memory itself, for the hardware or for Linux (PROT_NONE, device entries)."""
        if raw == 0:
            return False
        if self.linux is not None:
            return self.linux.decode(level.number, raw).kind in _COUNTED_KINDS
        return self.regime.classify(level, raw).type is EntryType.LEAF

    # ---- finding entries

    def tree(self, va: int) -> Tree:
        """The tree that translates `va`; InputError where none does."""
        for tree in self._trees:
            if va in tree:
                return tree
        raise InputError("no table translates this address", field="va", value=f"{va:#018x}")

    def levels(self, va: int) -> tuple[Level, ...]:
        """The levels of the tree that translates `va`, from the root down."""
        return self.tree(va).levels

    def level(self, va: int, depth: int) -> Level:
        """The level `depth` above the last one (0 PTE, 1 PMD, 2 PUD); InputError where the tree has none."""
        levels = self.tree(va).levels
        if not 0 <= depth < len(levels):
            raise InputError("the tables have no level of this depth", field="depth", value=depth)
        return levels[-1 - depth]

    def slot_in(self, table: int, level: Level, va: int) -> Slot:
        """The entry for `va` in the table at `table`, whether or not the table is linked."""
        size = self.tree(va).entry_size
        return Slot(table + level.index(va) * size, level, va >> level.shift << level.shift)

    def read(self, slot: Slot) -> int:
        """The entry's value."""
        return self.memory.read_uint(slot.pa, self.tree(slot.va).entry_size)

    def neighbour(self, slot: Slot) -> Slot | None:
        """The next entry of the same table; None behind the last."""
        va = slot.va + slot.size
        if slot.level.index(va) == 0:
            return None
        return Slot(slot.pa + self.tree(slot.va).entry_size, slot.level, va)

    def path(self, va: int) -> list[Slot]:
        """The entries from the root down to the first that is no table."""
        tree = self.tree(va)
        slots, table = [], tree.root
        for level in tree.levels:
            slot = self.slot_in(table, level, va)
            slots.append(slot)
            entry = self.regime.classify(level, self.read(slot))
            if entry.type is not EntryType.TABLE:
                break
            table = entry.pa
        return slots

    def lookup(self, va: int) -> Slot:
        """The entry that decides about `va`: a leaf, or the first that is not a table."""
        return self.path(va)[-1]

    def find(self, va: int, depth: int) -> Slot | None:
        """The entry for `va` at `depth` above the last level; None where no table reaches down to it."""
        level = self.level(va, depth)
        for slot in self.path(va):
            if slot.level is level:
                return slot
        return None

    def slots(self, start: int, end: int, *, empty: bool = False) -> Iterator[Slot]:
        """The deciding entries of a range in ascending order; holes are skipped unless `empty`."""
        va = start
        while va < end:
            slot = self.lookup(va)
            if empty or self.read(slot):
                yield slot
            va = slot.va + slot.size

    # ---- tables

    def ensure(self, va: int, depth: int = 0) -> Slot:
        """The entry for `va` at `depth`, tables allocated on the way; InputError where something else is in the way."""
        wanted = self.level(va, depth)
        with self.batch():
            slot = self.lookup(va)
            while slot.level is not wanted:
                if slot.level.shift < wanted.shift:
                    return self._above(va, wanted)
                raw = self.read(slot)
                if raw:
                    text = f"a {slot.level.linux_name} entry {raw:#x} is in the way of a table"
                    raise InputError(text, field="va", value=f"{va:#018x}")
                slot = self.slot_in(self.link_new_table(slot), self._below(slot.level, va), va)
            return slot

    def _above(self, va: int, wanted: Level) -> Slot:
        return next(slot for slot in self.path(va) if slot.level is wanted)

    def _below(self, level: Level, va: int) -> Level:
        levels = self.tree(va).levels
        return levels[levels.index(level) + 1]

    def new_table(self) -> int:
        """A zeroed frame for a table that is not linked yet."""
        pa = self.frames.alloc()
        if self._batch is not None:
            self._taken.append(pa)
        for offset in range(0, self.frames.page_size, 16):
            self.memory.write_uint(pa + offset, 0, 16)
        return pa

    def link(self, slot: Slot, table: int, reason: Reason = Reason.TABLE) -> None:
        """Let an entry point at a table (pmd_populate)."""
        if self.linux is not None:
            self.write(slot, self.linux.table(slot.level.number, table), reason)
        else:
            self.write(slot, self.entries.table(slot.level, table), reason)

    def link_new_table(self, slot: Slot) -> int:
        """Allocate a table, let the entry point at it, and return its address."""
        table = self.new_table()
        self.link(slot, table)
        return table

    def unlink(self, slot: Slot, new: int = 0, reason: Reason = Reason.TABLE) -> int:
        """Replace an entry that points at a table by `new` and return the table's address; the frame stays taken."""
        entry = self.regime.classify(slot.level, self.read(slot))
        if entry.type is not EntryType.TABLE:
            raise InputError("this entry points at no table", field="va", value=f"{slot.va:#018x}")
        self.write(slot, new, reason)
        return entry.pa

    def free_table(self, table: int) -> None:
        """Give a table's frame back; inside a batch, when it ends. InputError where the editor did not allocate it."""
        if self._batch is None:
            self.frames.free(table)
        elif table in self.frames:
            self._freed.append(table)
        else:
            raise InputError("this table did not come from the editor's frames", field="pa", value=table)

    def table_slots(self, slot: Slot) -> list[Slot]:
        """The entries of the table that an entry points at."""
        entry = self.regime.classify(slot.level, self.read(slot))
        if entry.type is not EntryType.TABLE:
            raise InputError("this entry points at no table", field="va", value=f"{slot.va:#018x}")
        below = self._below(slot.level, slot.va)
        size = self.tree(slot.va).entry_size
        count = slot.size >> below.shift
        return [Slot(entry.pa + i * size, below, slot.va + (i << below.shift)) for i in range(count)]

    def prune(self, start: int, end: int) -> int:
        """Unlink and free the empty tables that translate any address of a range (free_pgtables); how many."""
        freed = 0
        with self.batch():
            for depth in range(1, len(self.levels(start))):
                level = self.level(start, depth)
                va = start >> level.shift << level.shift
                while va < end:
                    path = self.path(va)
                    slot = next((slot for slot in path if slot.level is level), path[-1])
                    if slot is not path[-1] and not any(self.read(below) for below in self.table_slots(slot)):
                        self.free_table(self.unlink(slot))
                        freed += 1
                    va = slot.va + slot.size
        return freed
