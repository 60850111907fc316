"""The ASCII map of one folio: a row a process, a column for as many pages as fit, a letter for the level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..rmap.levels import Level
from .snapshot import FolioShown

LETTERS = {Level.PTE: "t", Level.PMD: "M", Level.PUD: "U"}
"""What maps the pages of a column; `.` nothing, `2` entries of this process map them more than once."""
WIDTH = 64
"""Columns of a map, more only where its parts need them."""
MAX_PARTS = 48
"""Parts up to which each part gets columns of its own."""

Part = tuple[Level, int, int]


def _edges(mapped: dict[str, list[Part]], nr_pages: int) -> list[int]:
    found = {0, nr_pages}
    for parts in mapped.values():
        for _, first, n in parts:
            found |= {first, first + n}
    return sorted(found)


def _letter(parts: Sequence[Part], first: int, end: int) -> str:
    over = [(level, low, n) for level, low, n in parts if low < end and first < low + n]
    if not over:
        return "."
    if len(over) > 1 and any(a[1] < b[1] + b[2] and b[1] < a[1] + a[2] for a in over for b in over if a is not b):
        return "2"
    if len(over) == 1 and over[0][1] <= first and end <= over[0][1] + over[0][2]:
        return LETTERS[over[0][0]]
    return "+"


def columns(edges: list[int], nr_pages: int) -> tuple[list[int], bool]:
    """Where each column begins, the end last; true where columns may be mapped in part.

    Every part between two edges gets columns of its own, as wide as it is large but never none; with too many parts
    all columns are equal.

    >>> columns([0, 2, 16], 16)
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], False)
    >>> columns([0, 1, 512], 512)[0][:4]
    [0, 1, 9, 17]
    """
    if nr_pages <= WIDTH:
        return list(range(nr_pages + 1)), False
    if len(edges) - 1 > MAX_PARTS:
        step = nr_pages // WIDTH
        return list(range(0, nr_pages + 1, step)), True
    starts = []
    for first, end in pairwise(edges):
        step = max(nr_pages // WIDTH, 1)
        starts += list(range(first, end, step))
    return [*starts, nr_pages], False


def summary(parts: Sequence[Part], sizes: dict[Level, int]) -> str:
    """How many entries of each level.

    >>> summary([(Level.PMD, 0, 1024), (Level.PTE, 1024, 3)], {Level.PTE: 1, Level.PMD: 512})
    '3 PTE, 2 PMD'
    """
    counts = {level: sum(n for one, _, n in parts if one == level) // size for level, size in sizes.items()}
    return ", ".join(f"{n} {level.name}" for level, n in counts.items() if n)


def picture(folio: FolioShown, sizes: dict[Level, int]) -> list[str]:
    """The lines of the map: the pages at which parts begin, then a row for each process that maps any."""
    nr_pages = 1 << folio.order
    edges = _edges(folio.mapped, nr_pages)
    starts, blurred = columns(edges, nr_pages)
    names = max((len(name) for name in folio.mapped), default=0)
    margin = max(names, 4)
    lines = [f"{'page':<{margin}}  {_ruler(edges if not blurred else [0, nr_pages // 2], starts)}"]
    for name, parts in folio.mapped.items():
        row = "".join(_letter(parts, first, end) for first, end in pairwise(starts))
        lines.append(f"{name:<{margin}}  {row}  {summary(parts, sizes)}")
    if not folio.mapped:
        lines.append(f"{'':<{margin}}  nobody maps it")
    if blurred:
        lines.append(f"{'':<{margin}}  a column is {starts[1]} pages, + is mapped in part or at several levels")
    return lines


def _ruler(edges: list[int], starts: list[int]) -> str:
    """Page numbers over the columns where parts begin; a number that would touch the one before it is left out."""
    row = ""
    for edge in edges[:-1] if edges[-1] == starts[-1] else edges:
        at = starts.index(edge)
        if row == "" or at > len(row):
            row = row.ljust(at) + str(edge)
    return row
