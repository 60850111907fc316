"""Early rejection of mappings before a counter overflows: this project's answer to the series' open TODO.

The posted series says that fork and file-mapping faults should check early and implements nothing. Here a *soft*
limit, read without a lock, stops fork and file faults at half of a counter's range; a *hard* limit inside the
counters refuses what would turn one negative. Splitting a PMD or PUD, re-adding after migration and swapping in
repeat mappings that were already admitted: they are exempt from the soft limit and may use the hard limit's
headroom of one folio.
"""

from __future__ import annotations

from dataclasses import dataclass

INT_MAX = (1 << 31) - 1


@dataclass(frozen=True)
class Limits:
    """Largest legal values of a folio's mapcount, total mapped pages (0: by word width) and references.

    >>> Limits(mapcount=1000).soft(1000)
    500
    """

    mapcount: int = INT_MAX
    total_mapped_pages: int = 0
    refcount: int = INT_MAX

    def total(self, bits: int) -> int:
        """The limit of total mapped pages: a signed long of the given width unless set."""
        return self.total_mapped_pages or (1 << (bits - 1)) - 1

    @staticmethod
    def soft(limit: int) -> int:
        """The soft limit that belongs to a hard one: half of it, so that racing CPUs fit into the other half."""
        return limit // 2


def room(value: int, limit: int, unit: int) -> int:
    """How many steps of `unit` still fit between value and limit.

    >>> room(900, 1000, 8), room(1001, 1000, 8)
    (12, 0)
    """
    return max(limit - value, 0) // unit


def wrap(value: int, bits: int) -> int:
    """The value as a signed two's complement number of that width, as an unchecked kernel counter holds it.

    >>> wrap(1 << 31, 32), wrap(-1, 16)
    (-2147483648, -1)
    """
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half
