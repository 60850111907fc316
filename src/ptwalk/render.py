"""Text pictures: bit diagrams of entries, walks in the manner of crash's vtop."""

from __future__ import annotations

from collections.abc import Iterable

from .arch.layout import ADDRESS, IGNORED, RES0, SOFTWARE, Field, Layout
from .mmu.walk import Fault, Outcome, Step, Translation

_ROLES = {RES0: "reserved", IGNORED: "ignored", SOFTWARE: "software"}


def bit_diagram(layout: Layout, value: int) -> str:
    """The word in bytes under a ruler of bit numbers, then one row a field, highest bit first.

    >>> from ptwalk.arch.layout import Layout, address, bit, bits, res0
    >>> print(bit_diagram(Layout("DEMO", bit("P"), bits("KEY", 2), res0(1), address("PFN", 12)), 0x1235))
    15      8 7       0
    0001.0010 0011.0101
    15:4   0001.0010.0011       PFN = 0x123  (address 0x1230)
    3      0                    RES0_3 = 0  (reserved)
    2:1    10                   KEY = 0x2
    0      1                    P = 1
    """
    digits = f"{value:0{layout.width}b}"
    ruler, groups = [], []
    for i in range(0, layout.width, 8):
        high = layout.width - 1 - i
        low = high - 7
        ruler.append(f"{high}{low:>{9 - len(str(high))}}" if layout.width <= 64 else f"{high:<5}{low:>4}")
        groups.append(f"{digits[i : i + 4]}.{digits[i + 4 : i + 8]}")
    lines = []
    for i in range(0, len(groups), 8):
        lines += [" ".join(ruler[i : i + 8]).rstrip(), " ".join(groups[i : i + 8])]
    return "\n".join(lines + [_row(field, value) for field in reversed(list(layout.values()))])


def _row(field: Field, value: int) -> str:
    place = f"{field.shift + field.width - 1}:{field.shift}" if field.width > 1 else str(field.shift)
    content = field.get(value)
    digits = f"{content:0{field.width}b}"
    head = field.width % 4
    cells = ".".join(c for c in [digits[:head], *(digits[i : i + 4] for i in range(head, field.width, 4))] if c)
    if field.width > 16:
        cells = ""
    shown = f"{field.name} = {content:#x}" if field.width > 1 else f"{field.name} = {content}"
    role = f"address {value & field.mask:#x}" if field.role == ADDRESS else _ROLES.get(field.role, "")
    if field.role == RES0 and content:
        role = "reserved: set"
    return f"{place:<6} {cells:<20} {shown}{f'  ({role})' if role else ''}".rstrip()


def step_line(step: Step) -> str:
    """One line of a walk: level in both tongues, entry address `=>` value, decoded flags, what the entry does."""
    stage = f"S{step.stage} " if step.stage != 1 else ""
    if step.pa is None or step.raw is None:
        return f"  {stage}{step.rule}: {step.note}"
    names = step.name + (f"/{step.linux_name}" if step.linux_name else "")
    width = step.kind.width // 4 + 2 if step.kind else 18
    flags = step.kind.flags(step.raw) if step.kind else ""
    return f"  {stage}{names:<10} {step.pa:#018x} => {step.raw:#0{width}x}  {flags}  [{step.note}]"


def outcome_lines(outcome: Outcome) -> Iterable[str]:
    """The end of a walk: the physical address with page size and rights, or the fault with level, entry and bit."""
    return _translation(outcome) if isinstance(outcome, Translation) else _fault(outcome)


def _translation(end: Translation) -> Iterable[str]:
    from .cli.common import size

    level = f" at level {end.level}" if end.level is not None else ", translation off"
    yield f"PA    {end.pa:#018x}  {size(1 << end.page_shift)} page{level}  {end.rights.text()}"
    if end.attributes:
        yield "      " + "  ".join(f"{name}={_plain(x)}" for name, x in end.attributes.items())
    yield from _updates(end)


def _fault(end: Fault) -> Iterable[str]:
    where = f" at level {end.level}" if end.level is not None else ""
    stage = f" (stage {end.stage})" if end.stage != 1 else ""
    yield f"FAULT {end.name} code {end.code:#x}{where}{stage}: {end.rule}"
    if end.entry_pa is not None and end.entry is not None:
        yield f"      entry {end.entry_pa:#018x} => {end.entry:#018x}" + (f", bit {end.bit}" if end.bit else "")
    elif end.bit:
        yield f"      decided by {end.bit}"
    if end.syndrome:
        yield "      " + "  ".join(f"{name}={x:#x}" for name, x in end.syndrome.items())
    if end.also:
        yield f"      would also fail: {'; '.join(end.also)}"
    if end.source:
        yield f"      source: {end.source}"
    yield from _updates(end)


def _updates(end: Outcome) -> Iterable[str]:
    for pa, old, new in end.updates:
        yield f"      update {pa:#018x}: {old:#018x} -> {new:#018x}"


def _plain(x: object) -> str:
    return f"{x:#x}" if isinstance(x, int) and not isinstance(x, bool) and x > 9 else str(x)
