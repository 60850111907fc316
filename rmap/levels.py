"""Page-table levels as rmap counts them, and the rules one accounting run is made under."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from .overflow import Limits


class Level(IntEnum):
    """The kernel's enum pgtable_level, as far as leaf entries exist.

    >>> Level.PMD.name.lower()
    'pmd'
    """

    PTE = 0
    PMD = 1
    PUD = 2


class LevelOrders(NamedTuple):
    """Orders (log2 of base pages) that one PMD and one PUD leaf cover.

    >>> LevelOrders().order(Level.PUD), LevelOrders().size(Level.PMD)
    (18, 512)
    """

    pmd: int = 9
    pud: int = 18

    def order(self, level: Level) -> int:
        """log2 of the base pages one leaf of this level maps (the series' pgtable_level_to_order)."""
        return (0, self.pmd, self.pud)[level]

    def size(self, level: Level) -> int:
        """Base pages one leaf of this level maps."""
        return 1 << self.order(level)


ORDERS_BY_PAGE_SIZE = {4096: LevelOrders(9, 18), 16384: LevelOrders(11, 22), 65536: LevelOrders(13, 26)}
"""Level orders by base page size in bytes: x86-64 and arm64 4K, arm64 16K, arm64 64K."""


@dataclass(frozen=True)
class Rules:
    """What a model must know beyond its own rules: level orders, word width, page size, slips kept or mended, limits.

    `literal` does what was posted or what mainline really computes, slips included, and has no overflow checks;
    otherwise what was meant. `bits` is 64 or 32 and sets the widths of the mm-id fields and of long counters.

    >>> Rules().mm_id_max, Rules(bits=32).mm_id_mapcount_max
    (2147483647, 32767)
    """

    levels: LevelOrders = field(default_factory=LevelOrders)
    bits: int = 64
    page_size: int = 4096
    literal: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def mm_id_max(self) -> int:
        """MM_ID_MAX: ids are 31 bits wide, 15 on 32-bit."""
        return (1 << (31 if self.bits == 64 else 15)) - 1

    @property
    def mm_id_mapcount_max(self) -> int:
        """MM_ID_MAPCOUNT_MAX: INT_MAX, SHRT_MAX on 32-bit."""
        return (1 << (31 if self.bits == 64 else 15)) - 1
