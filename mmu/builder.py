"""Page tables from a list of mappings, as a person describes them: everything is checked before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..arch.errors import InputError
from .editor import TableEditor
from .frames import FrameAllocator
from .hardware_entries import PageAttributes
from .memory import Memory
from .ranges import map_range, page_level
from .regime import Regime, Tree

DEFAULT = PageAttributes()


@dataclass(frozen=True, slots=True)
class Mapping:
    """`size` bytes of virtual addresses from `va` on that go to `pa`.

    `page_size` is the size of every page in bytes, or None for the largest that fit. `contiguous` sets arm64's
    contiguous bit where a group of pages allows it. `label` is how errors call the mapping (a path in a file ...).
    """

    va: int
    pa: int
    size: int
    attributes: PageAttributes = DEFAULT
    page_size: int | None = None
    contiguous: bool = False
    label: str = ""

    @property
    def end(self) -> int:
        """The first address behind the mapping."""
        return self.va + self.size


class MappingError(InputError):
    """A mapping that cannot be built; `index` is its place in the list.

    >>> print(MappingError(2, Mapping(0, 0, 0, label="spaces.A.mappings[2]"), "the size is 0", "size", 0))
    spaces.A.mappings[2].size: the size is 0 (0x0)
    """

    def __init__(self, index: int, mapping: Mapping, problem: str, part: str, value: object = None) -> None:
        self.index = index
        name = mapping.label or f"mapping {index}"
        super().__init__(problem, field=f"{name}.{part}", value=value)


def build(
    memory: Memory, regime: Regime, frames: FrameAllocator, mappings: Sequence[Mapping], *, space: str = ""
) -> TableEditor:
    """Build the tables of all mappings below the regime's roots (which have to be zeroed RAM) and return their editor.

    `frames` gives the tables' frames. MappingError, before anything is written, for a mapping that is misaligned,
    overlaps another one or lies outside what the regime translates or can address.

    >>> from .machine import regime_from_registers
    >>> from .memory import PhysicalMemory
    >>> from .walk import outcome
    >>> memory = PhysicalMemory()
    >>> _ = memory.add_ram(0, 1 << 20)
    >>> regime = regime_from_registers("x86_64", {"CR3": 0x1000}, {})
    >>> _ = build(memory, regime, FrameAllocator(0x2000, 0x9000), [Mapping(0x20_0000, 0x4000_0000, 1 << 21)])
    >>> hex(outcome(regime.walk(memory, 0x21_2345)).pa)
    '0x40012345'
    """
    editor = TableEditor(memory, regime, frames, space=space)
    for index, mapping in enumerate(mappings):
        _check(editor, index, mapping)
    _check_overlaps(mappings)
    with editor.batch():
        for index, mapping in enumerate(mappings):
            _map(editor, index, mapping)
    return editor


def _map(editor: TableEditor, index: int, mapping: Mapping) -> None:
    size, contiguous = mapping.page_size, mapping.contiguous
    try:
        map_range(
            editor, mapping.va, mapping.pa, mapping.size, mapping.attributes, page_size=size, contiguous=contiguous
        )
    except InputError as error:
        raise MappingError(index, mapping, error.problem, error.field or "va", error.value) from error


def _tree_of(regime: Regime, mapping: Mapping) -> Tree | None:
    """The tree that translates the whole mapping."""
    for tree in regime.trees:
        if mapping.va in tree and mapping.end <= tree.va_end:
            return tree
    return None


def _check(editor: TableEditor, index: int, mapping: Mapping) -> None:
    """Size, range and alignment of one mapping, and whether its attributes can be said at all."""
    tree = _tree_of(editor.regime, mapping)
    if mapping.size <= 0:
        raise MappingError(index, mapping, "the size is not positive", "size", mapping.size)
    if tree is None:
        text = f"{mapping.va:#018x} to {mapping.end:#018x} is not inside one range of translated addresses"
        raise MappingError(index, mapping, text, "va")
    sizes = [1 << level.shift for level in tree.levels if level.leaf]
    unit = mapping.page_size if mapping.page_size is not None else sizes[-1]
    if unit not in sizes:
        known = ", ".join(f"{size:#x}" for size in sizes)
        raise MappingError(index, mapping, f"the page sizes here are {known}", "page_size", mapping.page_size)
    for part in ("va", "pa", "size"):
        value = getattr(mapping, part)
        if value % unit:
            raise MappingError(index, mapping, f"not a multiple of the page size {unit:#x}", part, value)
    try:
        first = page_level(editor, mapping.va, mapping.pa, mapping.size, mapping.page_size)
        editor.entries.leaf(first, mapping.pa, mapping.attributes)
        last = next(level for level in tree.levels if level.leaf)
        editor.entries.leaf(last, mapping.pa + mapping.size - 1 >> last.shift << last.shift, mapping.attributes)
    except InputError as error:
        raise MappingError(index, mapping, error.problem, error.field or "pa", error.value) from error


def _check_overlaps(mappings: Sequence[Mapping]) -> None:
    order = sorted(range(len(mappings)), key=lambda i: mappings[i].va)
    for before, after in pairwise(order):
        first, second = mappings[before], mappings[after]
        if second.va < first.end:
            other = first.label or f"mapping {before}"
            text = f"overlaps {other}, which ends at {first.end:#018x}"
            raise MappingError(after, second, text, "va", second.va)
