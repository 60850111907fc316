"""A walk as a diagram: each table with the entry that was read, its neighbours, and its bits."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..mmu.machine import Machine
from ..mmu.walk import Fault, Outcome, Step, finish
from ..render import outcome_lines
from .wanted import Wanted

_AROUND = 2
"""Entries drawn on each side of the one that was read."""


def draw_walk(machine: Machine, wanted: Wanted) -> Iterator[str]:
    """The HTML of one walk: tables from left to right, then every entry bit by bit, then the outcome."""
    steps, end = finish(machine.regime(wanted.space).walk(machine.memory, wanted.va, wanted.access))
    yield '<div class="tables">'
    for step in steps:
        if step.pa is not None and step.raw is not None:
            yield _table(machine, step, end)
    said = list(outcome_lines(end))
    yield f'<div class="end {"fault" if isinstance(end, Fault) else ""}">{escape(said[0])}</div></div>'
    for step in steps:
        yield from _bits(step, end)
    tone = "mono fault" if isinstance(end, Fault) else "mono"
    yield "".join(f"<p class='{tone}'>{escape(line)}</p>" for line in said)


def _names(step: Step) -> str:
    return f"{step.name} / {step.linux_name}" if step.linux_name else step.name


def _table(machine: Machine, step: Step, end: Outcome) -> str:
    """The table around the entry: a row for each, the one that was read marked."""
    assert step.pa is not None
    size = 8 if step.kind is None else step.kind.width // 8
    rows = []
    for pa in range(step.pa - _AROUND * size, step.pa + (_AROUND + 1) * size, size):
        if pa < 0 or pa >> 12 != step.pa >> 12:  # 4 KiB is the smallest table
            continue
        raw = machine.memory.read_uint(pa, size) if machine.memory.backs(pa, size) else None
        mark = ""
        if pa == step.pa:
            mark = ' class="hit blame"' if isinstance(end, Fault) and end.entry_pa == pa else ' class="hit"'
        shown = "not in memory" if raw is None else f"{raw:#0{2 + 2 * size}x}"
        rows.append(f"<tr{mark}><td>{pa & 0xFFF:03x}</td><td>{shown}</td></tr>")
    table = f"<table>{''.join(rows)}</table>"
    return f"<figure><figcaption>{escape(_names(step))}<br>{step.pa & ~0xFFF:#018x}</figcaption>{table}</figure>"


def _bits(step: Step, end: Outcome) -> Iterator[str]:
    if step.pa is None or step.raw is None or step.kind is None:
        yield f"<p class='mono'>{escape(step.rule)}: {escape(step.note)}</p>"
        return
    yield (
        f"<p class='mono'><b>{escape(_names(step))}</b> {step.pa:#018x} &rarr; {step.raw:#018x} "
        f"<span class='dim'>{escape(step.note)}; {escape(step.rights.text())}</span></p>"
    )
    blamed = set(end.bit.split()) if isinstance(end, Fault) and end.entry_pa == step.pa else set()
    yield "<div class='bits'>"
    for field in reversed(list(step.kind.values())):
        value = field.get(step.raw)
        shown = f"{value:#x}" if field.width > 1 else str(value)
        marks = "field" + (" set" if value else "") + (" blame" if field.name in blamed else "")
        place = f"{field.shift + field.width - 1}:{field.shift}" if field.width > 1 else str(field.shift)
        yield f"<span class='{marks}' title='bits {place}'><small>{escape(field.name)}</small>{shown}</span>"
    yield "</div>"
