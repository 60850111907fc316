"""An address space as nested parts that open with a click or a key: the whole, the upper tables, runs of pages."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from html import escape

from ..arch.errors import InputError
from ..arch.linux_proc import KPF
from ..cli.common import size
from ..mmu.regime import Regime, Tree
from ..mmu.spaces import Leaf, ranges
from ..mmu.walk import Rights
from ..rmap.adopt import KernelFrames
from ..rmap.folio import Kind
from ..shell.accounts import Accounts

_USER = Rights.UR | Rights.UW | Rights.UX
_STRIP_CELLS = 128
_RIGHTS = (
    ("k", "kernel only"), ("r", "user, readable"), ("x", "user, executable"), ("w", "user, writable"),
    ("wx", "writable and executable"),
)  # fmt: skip
_SIZES = (("s0", "smallest pages"), ("s1", "one level up (PMD)"), ("s2", "two levels up (PUD)"))
_KINDS = (
    ("other", "no folio known"), ("kernel", "the kernel's own, or free"), ("file", "file"), ("shmem", "shmem"),
    ("anon", "anonymous"), ("ksm", "KSM"), ("huge", "hugetlb"), ("mixed", "several kinds, or over 8192 folios"),
)  # fmt: skip
_MOST_FOLIOS = 8192
"""Folios looked at for the kind of one entry: all pages of a PMD of 64K pages."""
_PAGE_CACHE = KPF.mask("LRU", "UNEVICTABLE", "UPTODATE", "MMAP")
"""A page that is not anonymous and has none of these holds no file's data: slab, page tables, stacks, free memory."""
_DIMENSIONS = (("rights", _RIGHTS), ("size", _SIZES), ("kind", _KINDS))
_STRENGTH = {name: nth for _, classes in _DIMENSIONS for nth, (name, _) in enumerate(classes)}
CONTROLS = (
    "<fieldset><legend>colour by</legend>"
    + "".join(
        f'<label><input type="radio" name="by" id="by-{name}"{" checked" if name == "rights" else ""}> {name}</label> '
        for name, _ in _DIMENSIONS
    )
    + "</fieldset>"
)
"""The switch that every strip and table of the page follows; without :has() in the browser rights stay."""
LEGEND_HTML = "".join(
    f'<p class="legend by-{name}">'
    + " ".join(f'<span class="{one}">&#9632;</span> {escape(text)}' for one, text in classes)
    + ' <span class="dim">a cell of a strip shows the rightmost of these that it holds</span></p>'
    for name, classes in _DIMENSIONS
)


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


class Palette:
    """The CSS classes of a leaf: its rights, its size, and the kind of its folio where the source tells."""

    def __init__(self, accounts: Accounts | None) -> None:
        self.accounts = accounts
        self._kinds: dict[tuple[int, int], str] = {}

    def classes(self, tree: Tree, leaf: Leaf) -> tuple[str, str, str]:
        """One class for each way of colouring."""
        depth = min(len(tree.levels) - 1 - tree.levels.index(leaf.level), 2)
        return colour(leaf.rights), f"s{depth}", self._kind(leaf.pa, leaf.size)

    def joint(self, tree: Tree, leaves: Sequence[Leaf]) -> tuple[str, ...]:
        """The classes of leaves that one row shows; equal in rights and size, but not always in kind."""
        found = [self.classes(tree, leaf) for leaf in leaves]
        kinds = {kind for _, _, kind in found}
        return (*found[0][:2], kinds.pop() if len(kinds) == 1 else "mixed")

    def _kind(self, pa: int, size: int) -> str:
        if self.accounts is None:
            return "other"
        if (pa, size) not in self._kinds:
            self._kinds[pa, size] = _kind(self.accounts, pa, size)
        return self._kinds[pa, size]


def _kind(accounts: Accounts, pa: int, size: int) -> str:
    """The kind of all folios that hold `size` bytes at `pa`, or "mixed"."""
    pfn, end, only = pa // accounts.page_size, (pa + size) // accounts.page_size, ""
    for _ in range(_MOST_FOLIOS):
        kind, pfn = _frame_kind(accounts.frames, pfn)
        if only and kind != only:
            return "mixed"
        only = kind
        if pfn >= end:
            return only
    return "mixed"


def _frame_kind(frames: KernelFrames, pfn: int) -> tuple[str, int]:
    """The kind of the folio of a frame, and the first frame after it."""
    if frames.facts.kpageflags(pfn) is None:
        return "other", pfn + 1
    try:
        folio = frames.folio(pfn)
    except InputError:  # kpageflags describes no folio here
        return "other", pfn + 1
    if folio is None:
        return "other", pfn + 1
    end = folio.pfn + folio.nr_pages
    if folio.kind is Kind.FILE and not (frames.facts.kpageflags(folio.pfn) or 0) & _PAGE_CACHE:
        return "kernel", end
    return "huge" if folio.kind.is_hugetlb else folio.kind.value, end


def draw(regime: Regime, leaves: Sequence[Leaf], palette: Palette) -> Iterator[str]:
    """The HTML of a whole space, tree by tree."""
    for tree in regime.trees:
        mine = [leaf for leaf in leaves if leaf.va in tree]
        title = f"{tree.register} {tree.va_start:#018x} to {tree.va_end - 1:#018x}"
        if not mine:
            yield f'<p class="mono dim">{escape(title)}: nothing is mapped</p>'
            continue
        yield "<details open><summary>" + _head(title, tree, palette, mine, tree.va_start, tree.va_end) + "</summary>"
        yield from _part(tree, palette, mine, 0)
        yield "</details>"


def _part(tree: Tree, palette: Palette, leaves: Sequence[Leaf], depth: int) -> Iterator[str]:
    """What one table maps: a part for each entry, or runs of pages where no table is below."""
    level = tree.levels[depth]
    upper = depth + 2 < len(tree.levels)
    if not upper:
        yield from _runs(tree, palette, leaves)
        return
    for start, inside in _grouped(leaves, level.shift):
        if len(inside) == 1 and inside[0].level == level:
            yield from _runs(tree, palette, inside)
            continue
        end = start + (1 << level.shift)
        title = f"{level.name} {start:#018x} {size(1 << level.shift):>5}"
        yield "<details><summary>" + _head(title, tree, palette, inside, start, end) + "</summary>"
        yield from _part(tree, palette, inside, depth + 1)
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


def _runs(tree: Tree, palette: Palette, leaves: Sequence[Leaf]) -> Iterator[str]:
    yield '<div class="scroll"><table>'
    at = 0
    for r in ranges(iter(leaves)):
        after = bisect_left(leaves, r.end, lo=at, key=lambda leaf: leaf.va)
        classes, at = palette.joint(tree, leaves[at:after]), after
        cells = (
            f"{r.va:#018x}", f"{r.end:#018x}", size(r.size), f"{size(1 << r.level.shift)} pages", f"{r.pa:#018x}",
            r.rights.text(), r.layout.flags(r.flags),
        )  # fmt: skip
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        yield f'<tr><td class="{" ".join(classes)}">&#9632;</td>{row}</tr>'
    yield "</table></div>"


def _head(title: str, tree: Tree, palette: Palette, leaves: Sequence[Leaf], start: int, end: int) -> str:
    mapped = sum(leaf.size for leaf in leaves)
    return f"{escape(title)} {_strip(tree, palette, leaves, start, end)} {size(mapped)} mapped"


def _strip(tree: Tree, palette: Palette, leaves: Sequence[Leaf], start: int, end: int) -> str:
    """A strip of the range; for each way of colouring a cell has the strongest class of the pages inside it."""
    width = max((end - start) // _STRIP_CELLS, 1)
    cells: dict[int, tuple[str, ...]] = {}
    for leaf in leaves:
        classes = palette.classes(tree, leaf)
        for cell in range((leaf.va - start) // width, (leaf.va + leaf.size - 1 - start) // width + 1):
            before = cells.get(cell, classes)
            cells[cell] = tuple(max(pair, key=_STRENGTH.__getitem__) for pair in zip(before, classes, strict=True))
    boxes = "".join(
        f'<rect class="{" ".join(cells[cell])}" x="{cell}" width="1" height="1"/>' for cell in sorted(cells)
    )
    rights = ", ".join(text for name, text in _RIGHTS if any(name == cell[0] for cell in cells.values()))
    label = f'role="img" aria-label="mapped: {rights}"'
    return f'<svg class="strip" viewBox="0 0 {_STRIP_CELLS} 1" preserveAspectRatio="none" {label}>{boxes}</svg>'
