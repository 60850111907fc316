"""Edits of entries and registers, in the order in which they were made, with the values to undo and redo them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..arch.errors import InputError
from ..mmu.editor import EntryChange, Reason, Slot, TableEditor
from ..mmu.frames import FrameAllocator
from ..mmu.machine import Machine
from .shown import Line, Shown


@dataclass(frozen=True)
class EntryEdit:
    """One entry written: the slot, its value before and after, in which space, and what was typed."""

    what: str
    space: str | None
    slot: Slot
    old: int
    new: int

    def text(self) -> str:
        """`pte.RW = 0x0   0x... => 0x... -> 0x...`."""
        return f"{self.what}   entry {self.slot.pa:#018x}: {self.old:#018x} -> {self.new:#018x}"

    def put(self, machine: Machine, value: int, reason: Reason) -> Sequence[EntryChange]:
        """Write the value through the table editor; what changed."""
        editor = editor_of(machine, self.space)
        changes: list[EntryChange] = []
        editor.observers.append(changes.extend)
        editor.write(self.slot, value, reason)
        return changes

    def undone(self, machine: Machine) -> Sequence[EntryChange]:
        """Take it back."""
        return self.put(machine, self.old, Reason.UNDO)

    def done(self, machine: Machine) -> Sequence[EntryChange]:
        """Make it (again)."""
        reason = Reason.MAP if not self.old else Reason.UNMAP if not self.new else Reason.PROTECT
        return self.put(machine, self.new, reason)


@dataclass(frozen=True)
class RegisterEdit:
    """One register written: its value before (None: not given) and after; `space` where it is that space's own."""

    what: str
    space: str | None
    name: str
    old: int | None
    new: int

    def text(self) -> str:
        """`cr4.SMEP = 0x1   CR4: 0x... -> 0x...`."""
        old = "not given" if self.old is None else f"{self.old:#018x}"
        return f"{self.what}   {self.name}: {old} -> {self.new:#018x}"

    def _registers(self, machine: Machine) -> dict[str, int]:
        return machine.registers if self.space is None else machine.space(self.space).registers

    def undone(self, machine: Machine) -> Sequence[EntryChange]:
        """Take it back."""
        if self.old is None:
            del self._registers(machine)[self.name]
        else:
            self._registers(machine)[self.name] = self.old
        return ()

    def done(self, machine: Machine) -> Sequence[EntryChange]:
        """Make it (again)."""
        self._registers(machine)[self.name] = self.new
        return ()


Edit = EntryEdit | RegisterEdit


def editor_of(machine: Machine, space: str | None) -> TableEditor:
    """An editor of a space's tables as the registers stand now; it links no new tables."""
    regime = machine.regime(space)
    sizes = [level.entries * tree.entry_size for tree in regime.trees for level in tree.levels]
    frames = FrameAllocator(0, 0, 1 << max(sizes, default=4096).bit_length())
    return TableEditor(machine.memory, regime, frames, space=space or "")


@dataclass(repr=False)
class Journal(Shown):
    """What was edited: `done` in order, `taken_back` what undo took back, the latest last."""

    done: list[Edit] = field(default_factory=list)
    taken_back: list[Edit] = field(default_factory=list)

    def add(self, edit: Edit) -> None:
        """A new edit; what was undone before it is forgotten."""
        self.done.append(edit)
        self.taken_back.clear()

    def latest(self) -> Edit:
        """The edit to undo; InputError where there is none."""
        if not self.done:
            raise InputError("nothing to undo: no entry or register was edited")
        return self.done[-1]

    def undone(self) -> Edit:
        """The edit to redo; InputError where there is none."""
        if not self.taken_back:
            raise InputError("nothing to redo: no edit was undone")
        return self.taken_back[-1]

    def originals(self) -> dict[int, int]:
        """What each edited entry held before its first edit, by address."""
        return {edit.slot.pa: edit.old for edit in reversed(self.done) if isinstance(edit, EntryEdit)}

    def lines(self) -> Iterator[Line]:
        for number, edit in enumerate(self.done, 1):
            yield [f"{number:>3}  {edit.text()}"]
        for number, edit in enumerate(reversed(self.taken_back), len(self.done) + 1):
            yield [(f"{number:>3}  {edit.text()}  (undone)", "dim")]
        if not self.done and not self.taken_back:
            yield ["nothing was edited"]
