"""A recorder of entry changes, with undo: an observer of the table editor."""

from __future__ import annotations

from collections.abc import Sequence

from ..arch.errors import InputError
from .editor import EntryChange, Reason, Slot, TableEditor
from .regime import EntryType


class Recorder:
    """Keeps the batches of an editor in order and takes them back, the last one first.

    >>> from .frames import FrameAllocator
    >>> from .machine import regime_from_registers
    >>> from .memory import WordMemory
    >>> regime = regime_from_registers("x86_64", {"CR3": 0x1000}, {})
    >>> editor = TableEditor(WordMemory({}), regime, FrameAllocator(0x2000, 0x9000))
    >>> recorder = Recorder(editor)
    >>> slot = editor.ensure(0x7000)
    >>> _ = editor.write(slot, 0x5067, Reason.MAP)
    >>> recorder.undo()[0].reason, editor.read(slot), len(recorder.batches)
    (<Reason.UNDO: 'undo'>, 0, 1)
    """

    def __init__(self, editor: TableEditor) -> None:
        self.editor = editor
        self.batches: list[list[EntryChange]] = []
        self._undone: list[EntryChange] | None = None
        editor.observers.append(self)

    def __call__(self, changes: Sequence[EntryChange]) -> None:
        if self._undone is None:
            self.batches.append(sorted(changes, key=lambda change: change.serial))
        else:
            self._undone.extend(changes)

    def undo(self) -> list[EntryChange]:
        """Write back what the last batch overwrote, tables included; the changes, as all observers were told them."""
        if not self.batches:
            raise InputError("nothing is left to undo", field="recorder")
        self._undone = []
        try:
            with self.editor.batch():
                for change in reversed(self.batches.pop()):
                    self._restore(change)
            return self._undone
        finally:
            self._undone = None

    def _restore(self, change: EntryChange) -> None:
        editor = self.editor
        linked = editor.regime.classify(change.level, change.new)
        before = editor.regime.classify(change.level, change.old)
        if before.type is EntryType.TABLE and before.pa not in editor.frames:
            editor.frames.claim(before.pa)
        editor.write(Slot(change.pa, change.level, change.va), change.old, Reason.UNDO)
        if linked.type is EntryType.TABLE and linked.pa in editor.frames and linked.pa != before.pa:
            editor.free_table(linked.pa)
