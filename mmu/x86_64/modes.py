"""The paging modes as data: levels from the root down, and how an entry of each level is laid out."""

from __future__ import annotations

from dataclasses import dataclass

from ...arch.layout import Layout
from ...arch.x86_64 import entries
from ..walk import Level


@dataclass(frozen=True, slots=True)
class Mode:
    """A paging mode: `tables` and `leaves` give the layout of an entry by level number, `section` is the manual's."""

    name: str
    entry_size: int
    va_bits: int
    levels: tuple[Level, ...]
    tables: dict[int, Layout]
    leaves: dict[int, Layout]
    section: str


_LONG_TABLES = {5: entries.PML5E, 4: entries.PML4E, 3: entries.PDPTE, 2: entries.PDE}
_LONG_LEAVES = {3: entries.PDPTE_1G, 2: entries.PDE_2M, 1: entries.PTE}


def _level(number: int, name: str, linux: str, shift: int, bits: int, leaf: bool) -> Level:
    return Level(number, name, linux, shift, bits, leaf)


_PT = _level(1, "PTE", "PTE", 12, 9, True)
_PD = _level(2, "PDE", "PMD", 21, 9, True)
_PDPT = _level(3, "PDPTE", "PUD", 30, 9, True)
_PDPT_NO_1G = _level(3, "PDPTE", "PUD", 30, 9, False)
_PML4_ROOT = _level(4, "PML4E", "PGD", 39, 9, False)  # Linux folds the P4D away
_PML4 = _level(4, "PML4E", "P4D", 39, 9, False)
_PML5 = _level(5, "PML5E", "PGD", 48, 9, False)


def long_mode(depth: int, gbpages: bool) -> Mode:
    """4- or 5-level paging; without 1-GByte pages PS is reserved in a PDPTE."""
    top = (_PML5, _PML4) if depth == 5 else (_PML4_ROOT,)
    levels = (*top, _PDPT if gbpages else _PDPT_NO_1G, _PD, _PT)
    return Mode(f"{depth}-level paging", 8, 12 + 9 * depth, levels, _LONG_TABLES, _LONG_LEAVES, "5.5")


PAE = Mode(
    "PAE paging", 8, 32,
    (_level(3, "PDPTE", "PGD", 30, 2, False), _level(2, "PDE", "PMD", 21, 9, True), _PT),
    {3: entries.PAE_PDPTE, 2: entries.PAE_PDE}, {2: entries.PAE_PDE_2M, 1: entries.PAE_PTE}, "5.4",
)  # fmt: skip


def legacy(pse: bool) -> Mode:
    """32-bit paging; without CR4.PSE the PS bit of a PDE is ignored."""
    levels = (_level(2, "PDE", "PGD", 22, 10, pse), _level(1, "PTE", "PTE", 12, 10, True))
    leaves = {1: entries.PTE32} | ({2: entries.PDE32_4M} if pse else {})
    return Mode("32-bit paging", 4, 32, levels, {2: entries.PDE32}, leaves, "5.3")


OFF = Mode("paging off", 4, 32, (), {}, {}, "5.1.1")  # linear addresses are physical ones
