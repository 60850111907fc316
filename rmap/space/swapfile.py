"""The slots of a scenario's swap file: how many entries refer to each, and which page of the swap cache holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..folio import Folio


@dataclass(eq=False)
class SwapFile:
    """Slots by offset. `counts` are the entries that refer to a slot, `frames` the pages still in memory.

    >>> swap = SwapFile()
    >>> swap.duplicate(swap.new_slot())
    >>> swap.counts
    {1: 1}
    """

    counts: dict[int, int] = field(default_factory=dict)
    frames: dict[int, int] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    next_slot: int = 1

    def new_slot(self) -> int:
        """A slot that was never used; the first of a swap file is its header."""
        self.next_slot += 1
        return self.next_slot - 1

    def hold(self, pfn: int, slot: int) -> None:
        """The page in this frame is the slot's copy in memory."""
        self.frames[slot] = pfn
        self.slots[pfn] = slot

    def enter(self, folio: Folio) -> None:
        """folio_alloc_swap: a slot for every page of a folio that has none yet."""
        for pfn in range(folio.pfn, folio.pfn + folio.nr_pages):
            if pfn not in self.slots:
                self.hold(pfn, self.new_slot())

    def leave(self, folio: Folio) -> None:
        """The folio leaves the swap cache; slots that are counted keep what was written to them."""
        for pfn in range(folio.pfn, folio.pfn + folio.nr_pages):
            slot = self.slots.pop(pfn, None)
            if slot is not None:
                del self.frames[slot]

    def move(self, old: Folio, new: Folio) -> None:
        """Migration: the new folio takes the old one's place in the swap cache."""
        for page in range(old.nr_pages):
            slot = self.slots.pop(old.pfn + page, None)
            if slot is not None:
                self.hold(new.pfn + page, slot)

    def duplicate(self, slot: int) -> None:
        """swap_duplicate: one more entry refers to the slot."""
        self.counts[slot] = self.counts.get(slot, 0) + 1

    def drop(self, slot: int) -> None:
        """swap_free: one entry less."""
        self.counts[slot] -= 1
        if not self.counts[slot]:
            del self.counts[slot]

    def is_counted(self, folio: Folio) -> bool:
        """folio_swapped: whether an entry refers to a slot of the folio."""
        frames = range(folio.pfn, folio.pfn + folio.nr_pages)
        return any(self.slots.get(pfn) in self.counts for pfn in frames)
