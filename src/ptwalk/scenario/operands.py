"""The operands of a scenario's steps, each checked against the machine."""

from __future__ import annotations

from .machine import Area, Leaf, Machine, Process
from .script import Words


def process_of(machine: Machine, words: Words) -> Process:
    """The process that the next word names."""
    name = words.name("process")
    if name not in machine.processes:
        raise words.error("no process of this name exists", name)
    return machine.processes[name]


def area_of(process: Process, words: Words) -> Area:
    """The area of a process that the next word names."""
    name = words.name("area")
    if name not in process.areas:
        raise words.error(f"process {process.name} has no area of this name", name)
    return process.areas[name]


def range_of(area: Area, words: Words) -> tuple[int, int]:
    """The pages that the next word names, by default all; they must be inside the area."""
    first, end = words.pages() or (0, area.nr_pages)
    if end > area.nr_pages or area.gone.any(first, end - first):
        raise words.error(f"pages {first}..{end - 1} are not all inside {area.name}, which has {extent(area)}")
    return first, end


def extent(area: Area) -> str:
    """The pages an area still has, in words."""
    parts = [f"{first}..{first + n - 1}" for first, n, gone in area.gone.runs() if not gone]
    return f"pages {', '.join(parts)}" if parts else "no page left"


def locate(machine: Machine, words: Words) -> tuple[Process, Leaf, int]:
    """The process, the entry and the address of `A v page`, which must be mapped."""
    process = process_of(machine, words)
    area = area_of(process, words)
    if not (words.left and words.left[0].isdecimal()):
        raise words.error("a page of the area is missing")
    first, end = range_of(area, words)
    va = area.start + first * machine.page_size
    leaves = machine.leaves(process, va, va + 1)
    if end != first + 1:
        raise words.error("one page is wanted, not a range")
    if not leaves:
        raise words.error(f"page {first} of {area.name} is not mapped by {process.name}")
    return process, leaves[0], va
