"""An address space as nested parts that open with a click or a key: the whole, the upper tables, runs of pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ..cli.common import size
from ..mmu.regime import Regime, Tree
from ..mmu.spaces import Leaf, Range, ranges
from ..mmu.walk import Rights

_USER = Rights.UR | Rights.UW | Rights.UX
_STRIP_CELLS = 128
LEGEND = (
    ("r", "user, readable"), ("w", "user, writable"), ("x", "user, executable"), ("wx", "writable and executable"),
    ("k", "kernel only"),
)  # fmt: skip


def colour(rights: Rights) -> str:
    """The CSS class of a page's rights; W+X for one and the same mode wins over all else.

    >>> colour(Rights.UR | Rights.UW), colour(Rights.KR | Rights.KX), colour(Rights.KW | Rights.KX)
    ('w', 'k', 'wx')
    """
    for write, execute in ((Rights.UW, Rights.UX), (Rights.KW, Rights.KX)):
        if rights & write and rights & execute:
            return "wx"
    if not rights & _USER:
        return "k"
    return "w" if rights & Rights.UW else "x" if rights & Rights.UX else "r"


def draw(regime: Regime, leaves: Sequence[Leaf]) -> Iterator[str]:
    """The HTML of a whole space, tree by tree."""
    for tree in regime.trees:
        mine = [leaf for leaf in leaves if leaf.va in tree]
        title = f"{tree.register} {tree.va_start:#018x} to {tree.va_end - 1:#018x}"
        if not mine:
            yield f'<p class="mono dim">{escape(title)}: nothing is mapped</p>'
            continue
        yield "<details open><summary>" + _head(title, mine, tree.va_start, tree.va_end) + "</summary>"
        yield from _part(tree, mine, 0)
        yield "</details>"


def _part(tree: Tree, leaves: Sequence[Leaf], depth: int) -> Iterator[str]:
    """What one table maps: a part for each entry, or runs of pages where no table is below."""
    level = tree.levels[depth]
    upper = depth + 2 < len(tree.levels)
    if not upper:
        yield from _runs(ranges(iter(leaves)))
        return
    for start, inside in _grouped(leaves, level.shift):
        if len(inside) == 1 and inside[0].level == level:
            yield from _runs(ranges(iter(inside)))
            continue
        end = start + (1 << level.shift)
        title = f"{level.name} {start:#018x} {size(1 << level.shift):>5}"
        yield "<details><summary>" + _head(title, inside, start, end) + "</summary>"
        yield from _part(tree, inside, depth + 1)
        yield "</details>"


def _grouped(leaves: Sequence[Leaf], shift: int) -> Iterator[tuple[int, list[Leaf]]]:
    group: list[Leaf] = []
    for leaf in leaves:
        if group and leaf.va >> shift != group[0].va >> shift:
            yield group[0].va >> shift << shift, group
            group = []
        group.append(leaf)
    if group:
        yield group[0].va >> shift << shift, group


def _runs(found: Iterator[Range]) -> Iterator[str]:
    yield '<div class="scroll"><table>'
    for r in found:
        cells = (
            f"{r.va:#018x}", f"{r.end:#018x}", size(r.size), f"{size(1 << r.level.shift)} pages", f"{r.pa:#018x}",
            r.rights.text(), r.layout.flags(r.flags),
        )  # fmt: skip
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        yield f'<tr><td class="{colour(r.rights)}">&#9632;</td>{row}</tr>'
    yield "</table></div>"


def _head(title: str, leaves: Sequence[Leaf], start: int, end: int) -> str:
    mapped = sum(leaf.size for leaf in leaves)
    return f"{escape(title)} {_strip(leaves, start, end)} {size(mapped)} mapped"


def _strip(leaves: Sequence[Leaf], start: int, end: int) -> str:
    """A strip of the range; a cell has the strongest colour of the pages inside it."""
    order = [name for name, _ in LEGEND]
    strength = {"k": 0, "r": 1, "x": 2, "w": 3, "wx": 4}
    width = max((end - start) // _STRIP_CELLS, 1)
    cells: dict[int, str] = {}
    for leaf in leaves:
        name = colour(leaf.rights)
        for cell in range((leaf.va - start) // width, (leaf.va + leaf.size - 1 - start) // width + 1):
            if strength[name] >= strength.get(cells.get(cell, ""), -1):
                cells[cell] = name
    boxes = "".join(f'<rect class="{cells[cell]}" x="{cell}" width="1" height="1"/>' for cell in sorted(cells))
    kinds = ", ".join(name for name in order if name in cells.values())
    label = f'role="img" aria-label="mapped: {kinds}"'
    return f'<svg class="strip" viewBox="0 0 {_STRIP_CELLS} 1" preserveAspectRatio="none" {label}>{boxes}</svg>'
