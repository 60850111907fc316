"""Questions about whole machines: listings, the reverse map, values decoded by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..arch.errors import InputError
from ..arch.layout import Layout
from ..cli import common
from ..cli.decode import find, kinds
from ..cli.maps import text_lines
from ..mmu.machine import Machine
from ..mmu.regime import Regime
from ..mmu.spaces import Broken, Range, leaves, ranges
from .bits import diagram
from .shown import Line, Shown


def number(x: int | str, field: str) -> int:
    """An address as number, or as hexadecimal text the way other tools print it.

    >>> number("7fff_f000", "va") == number(0x7ffff000, "va")
    True
    """
    if isinstance(x, str):
        return common.address(x, field)
    if not isinstance(x, int) or not 0 <= x < 1 << 64:
        raise InputError("not a 64-bit address", field=field, value=x)
    return x


SHOWN = 400
"""Ranges of a listing that its picture shows."""


@dataclass(frozen=True, repr=False)
class Listing(Shown):
    """An address space: `rows` are its ranges, `broken` the entries that lead nowhere; a long one is shown in part."""

    regime: Regime
    rows: list[Range]
    broken: list[Broken]

    def lines(self) -> Iterator[Line]:
        for line in text_lines(self.regime, iter(self.rows[:SHOWN])):
            yield [(line, "bold" if line.startswith("---") else "")]
        if (more := len(self.rows) - SHOWN) > 0:
            yield [(f"... and {more} ranges more: .rows has all, rights=, size=, pa= and va= choose some", "yellow")]
        if (more := len(self.broken) - SHOWN) > 0:
            yield [(f"... and {more} entries that lead nowhere more than these; .broken has all", "yellow")]
        for b in self.broken[:SHOWN]:
            where = f"{b.entry_pa:#018x} => {b.entry:#018x} ({b.level.name})"
            yield [(f"{b.va:#018x}: entry {where} leads nowhere: {b.reason}", "red")]
        if not self.rows:
            yield ["nothing is mapped here"]


def listing(machine: Machine, space: str | None, **wanted: str) -> Listing:
    """The ranges of a space; `wanted` are the filters of `ptwalk maps`: rights, size, pa, va."""
    if unknown := set(wanted) - {"rights", "size", "pa", "va"}:
        raise InputError("filters are rights, size, pa and va", field=min(unknown))
    keep = common.leaf_filter(*(wanted.get(name) for name in ("rights", "size", "pa", "va")))
    regime = machine.regime(space)
    broken: list[Broken] = []
    found = list(ranges(filter(keep, leaves(machine.memory, regime, report=broken.append))))
    return Listing(regime, found, broken)


@dataclass(frozen=True, repr=False)
class Sites(Shown):
    """Where a physical address is mapped: (space, virtual address, page size) of each mapping."""

    pa: int
    rows: list[tuple[str, int, int]]

    def lines(self) -> Iterator[Line]:
        yield [(f"PA    {self.pa:#018x}  mapped {len(self.rows)} times", "bold")]
        for space, va, size in self.rows:
            yield [f"  {space:<12} {va:#018x}  {common.size(size)} page"]


def sites(machine: Machine, pa: int) -> Sites:
    """Every virtual address of every space that leads to `pa`."""
    from ..mmu.kernels.reverse import ptov

    return Sites(pa, [(site.space, site.va, 1 << site.page_shift) for site in ptov(machine, pa)])


@dataclass(frozen=True, repr=False)
class Word(Shown):
    """A value read as a kind of entry or register; `fields` maps names to values."""

    layout: Layout
    value: int

    @property
    def fields(self) -> dict[str, int]:
        """Every field by name."""
        return self.layout.decode(self.value)

    def lines(self) -> Iterator[Line]:
        head = f"{self.layout.name}  {self.value:#0{self.layout.width // 4 + 2}x}"
        yield [(head, "bold"), f"  {self.layout.title}"]
        yield from diagram(self.layout, self.value)
        yield [(f"source: {self.layout.source}", "dim")]


def decoded(arch: str, value: int, kind: str) -> Word:
    """A value as `kind`, the architecture's own where both have one of this name; InputError suggests near names."""
    layout = find(next((name for name in kinds() if name.lower() == f"{arch}:{kind}".lower()), kind))
    if value < 0 or value >> layout.width:
        raise InputError(f"does not fit the {layout.width} bits of a {layout.name}", field="value", value=value)
    return Word(layout, value)
