"""MM ids: the small numbers by which a large folio tells whose mappings it counts (mainline since 6.15)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from ..arch.errors import InputError

MM_ID_DUMMY = 0
"""The id of no mm: a free slot."""
MM_ID_MIN = 1
"""The lowest id that is handed out."""


@dataclass(eq=False)
class Mm:
    """One address space as rmap sees it: its id, and whether it ever pinned pages (MMF_HAS_PINNED).

    >>> Mm(3)
    Mm(id=3, has_pinned=False)
    """

    id: int
    has_pinned: bool = False


class MmIds:
    """Hands out the lowest free id in [1, maximum], as mm_init does; ids come back when the mm is dropped.

    >>> ids = MmIds(3)
    >>> a, b = ids.alloc(), ids.alloc()
    >>> ids.free(a)
    >>> ids.alloc().id
    1
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._next = MM_ID_MIN
        self._returned: list[int] = []

    def alloc(self) -> Mm:
        """A new mm with the lowest free id; raises InputError when all ids are taken (mm creation fails)."""
        if self._returned:
            return Mm(heapq.heappop(self._returned))
        if self._next > self.maximum:
            raise InputError("no mm id is free, the address space cannot be created", value=self.maximum)
        self._next += 1
        return Mm(self._next - 1)

    def free(self, mm: Mm) -> None:
        """Return the id, at the time the kernel drops the mm (after its last mapping has gone)."""
        heapq.heappush(self._returned, mm.id)
        mm.has_pinned = False
