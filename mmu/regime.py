"""What every translation regime offers, whatever the architecture: its trees of tables and a walker.

`mmu.x86_64.regime.X86Regime` and `mmu.arm64.regime.Arm64Regime` implement `Regime`. Code that builds, edits or lists
tables is written against it: a level is data, an entry is classified by the regime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..arch.layout import Layout
from .memory import Memory
from .walk import Access, Level, Walk


class EntryType(Enum):
    """What the hardware makes of an entry, access rights aside."""

    NONE = "none"  # not present: the walk ends in a not-present or translation fault
    TABLE = "table"
    LEAF = "leaf"
    RESERVED = "reserved"  # present, but a reserved bit or an impossible address makes the walk fault


@dataclass(frozen=True, slots=True)
class Entry:
    """One classified entry: `pa` is the next table's or the mapped page's address (0 for NONE), `layout` decodes it."""

    type: EntryType
    pa: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree of tables: the register that roots it, the root's address, and the addresses it translates.

    `levels` runs from the root down. `va_start` to `va_end` is half-open, in full 64-bit (sign-extended) form; x86 has
    two halves of one root and therefore two trees.
    """

    register: str
    root: int
    levels: tuple[Level, ...]
    va_start: int
    va_end: int
    entry_size: int = 8

    def __contains__(self, va: int) -> bool:
        return self.va_start <= va < self.va_end

    @property
    def root_size(self) -> int:
        return self.levels[0].entries * self.entry_size


class Regime(Protocol):
    """A validated walk plan, built from register values by the architecture's `from_registers`."""

    @property
    def arch(self) -> str:
        """`x86_64` or `arm64`."""

    @property
    def trees(self) -> tuple[Tree, ...]:
        """The trees in ascending order of the addresses they translate; none where translation is off."""

    def walk(self, memory: Memory, va: int, access: Access | None = None, *, update: bool = False) -> Walk:
        """Walk `va`, one step an entry; `update` writes accessed and dirty bits back to memory as hardware would."""

    def classify(self, level: Level, raw: int) -> Entry:
        """What the hardware makes of the entry `raw` found at `level`."""

    def describe(self) -> Mapping[str, object]:
        """Mode, widths and switches in the manual's names, for people and for JSON."""
