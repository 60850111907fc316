"""Ranges of an address space through the table editor: map, unmap, protect, split a leaf, collapse a table."""

from __future__ import annotations

from ..arch.errors import InputError
from .editor import Reason, Slot, TableEditor
from .hardware_entries import PageAttributes
from .regime import EntryType
from .walk import Level


def page_level(editor: TableEditor, va: int, pa: int, left: int, page_size: int | None = None) -> Level:
    """The level of the leaf that maps `va` to `pa`: of `page_size`, or the largest that fits into `left` bytes.

    InputError where the tables have no pages of that size, or no size fits.
    """
    levels = [level for level in editor.levels(va) if level.leaf]
    if page_size is not None:
        levels = [level for level in levels if 1 << level.shift == page_size]
        if not levels:
            raise InputError("the tables have no pages of this size", field="page_size", value=page_size)
    for level in levels:
        size = 1 << level.shift
        if not (va | pa) & size - 1 and left >= size:
            return level
    raise InputError(f"no page of {1 << levels[-1].shift:#x} bytes fits here", field="va", value=f"{va:#018x}")


def map_range(
    editor: TableEditor,
    va: int,
    pa: int,
    size: int,
    attributes: PageAttributes,
    *,
    page_size: int | None = None,
    contiguous: bool = False,
    reason: Reason = Reason.MAP,
) -> None:
    """Map `size` bytes at `va` to `pa`, with pages of `page_size` bytes or the largest that fit.

    With `contiguous` each aligned group of leaves that the architecture can join gets its contiguous bit. InputError
    for misaligned addresses and where something is mapped already; then nothing changes.
    """
    make, end = editor.entries, va + size
    with editor.batch():
        joined_until, beside = va, None
        while va < end:
            level = page_level(editor, va, pa, end - va, page_size)
            raw = make.leaf(level, pa, attributes)
            group = (make.contiguous_entries(level) if contiguous else 1) << level.shift
            if group > 1 << level.shift and not (va | pa) & group - 1 and end - va >= group:
                joined_until = max(joined_until, va + group)
            near = beside is not None and beside.level is level and editor.read(beside) == 0
            slot = beside if near and beside is not None else _empty_slot(editor, va, level)
            editor.write(slot, make.contiguous(raw) if va < joined_until else raw, reason)
            va, pa, beside = va + slot.size, pa + slot.size, editor.neighbour(slot)


def _empty_slot(editor: TableEditor, va: int, level: Level) -> Slot:
    levels = editor.levels(va)
    slot = editor.ensure(va, len(levels) - 1 - levels.index(level))
    raw = editor.read(slot)
    if raw:
        text = f"a {level.linux_name} entry {raw:#x} stands here already"
        raise InputError(text, field="va", value=f"{va:#018x}")
    return slot


def unmap_range(editor: TableEditor, va: int, size: int, *, reason: Reason = Reason.UNMAP) -> int:
    """Clear every entry of a range, split the leaves that reach beyond it, free emptied tables; entries cleared."""
    cleared = 0
    with editor.batch():
        for slot in _slots_inside(editor, va, va + size):
            editor.write(slot, 0, reason)
            cleared += 1
        editor.prune(va, va + size)
    return cleared


def _slots_inside(editor: TableEditor, start: int, end: int) -> list[Slot]:
    """The non-empty entries of a range; leaves that reach beyond its edges are split first."""
    for edge in (start, end):
        while edge in editor.tree(start):
            slot = editor.lookup(edge)
            if not slot.va < edge or not editor.read(slot):
                break
            split(editor, slot)
    return list(editor.slots(start, end))


def protect_range(
    editor: TableEditor, va: int, size: int, attributes: PageAttributes, *, reason: Reason = Reason.PROTECT
) -> int:
    """Give every leaf of a range the rights of `attributes`; leaves that reach beyond it are split; leaves changed."""
    changed = 0
    with editor.batch():
        for slot in _slots_inside(editor, va, va + size):
            raw = editor.read(slot)
            if editor.regime.classify(slot.level, raw).type is EntryType.LEAF:
                editor.write(slot, editor.entries.protect(slot.level, raw, attributes), reason)
                changed += 1
    return changed


def split(editor: TableEditor, slot: Slot, *, reason: Reason = Reason.SPLIT) -> int:
    """Replace a leaf by a table of smaller leaves that map the same with the same attributes; the table's address.

    The table is filled before the leaf goes. InputError for what is no leaf, or has no smaller page below it.
    """
    raw = editor.read(slot)
    if editor.regime.classify(slot.level, raw).type is not EntryType.LEAF:
        raise InputError(f"the entry {raw:#x} is no leaf that could be split", field="va", value=f"{slot.va:#018x}")
    levels = editor.levels(slot.va)
    if slot.level is levels[-1]:
        raise InputError("a page of the smallest size cannot be split", field="va", value=f"{slot.va:#018x}")
    below = levels[levels.index(slot.level) + 1]
    pa = editor.entries.address(slot.level, raw)
    with editor.batch():
        table = editor.new_table()
        for offset in range(0, slot.size, 1 << below.shift):
            child = editor.slot_in(table, below, slot.va + offset)
            editor.write(child, editor.entries.resize(slot.level, raw, below, pa + offset), reason)
        editor.link(slot, table, reason)
    return table


def collapse(editor: TableEditor, slot: Slot, *, reason: Reason = Reason.COLLAPSE) -> None:
    """Replace a table of equal neighbouring leaves by one leaf and free the table.

    InputError where they are not all leaves, do not continue one another from an aligned address, or differ in more
    than their address.
    """
    children = editor.table_slots(slot)
    raws = [editor.read(child) for child in children]
    level, make = children[0].level, editor.entries
    for child, raw in zip(children, raws, strict=True):
        if editor.regime.classify(level, raw).type is not EntryType.LEAF:
            raise InputError(f"the entry {raw:#x} is no leaf", field="va", value=f"{child.va:#018x}")
    pa = make.address(level, raws[0])
    if pa & slot.size - 1:
        raise InputError("the first page is not aligned to the larger size", field="pa", value=pa)
    for i, (child, raw) in enumerate(zip(children, raws, strict=True)):
        if make.resize(level, raws[0], level, pa + (i << level.shift)) != make.resize(
            level, raw, level, make.address(level, raw)
        ):
            raise InputError(f"the entry {raw:#x} does not continue the first", field="va", value=f"{child.va:#018x}")
    with editor.batch():
        table = editor.unlink(slot, make.resize(level, raws[0], slot.level, pa), reason)
        for child in children:
            editor.write(child, 0, reason)
        editor.free_table(table)
