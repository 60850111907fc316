"""Bit layouts: declared once with construct, bit 0 first as the manuals draw them, and read back as shifts and masks.

A declaration is a tuple of construct fields from bit 0 upwards. `Layout` reads shift and width of every field from it,
so that no bit number is written anywhere else; for whoever wants construct itself it turns the declaration round into a
`BitStruct` (bit 63 first), wrapped in `ByteSwapped` because entries are little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from construct import BitsInteger, BitStruct, ByteSwapped, Flag, Renamed

RES0, IGNORED, ADDRESS, SOFTWARE = "RES0", "ignored", "address", "software"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a layout: bits `shift + width - 1` to `shift`; `role` is '', RES0, ignored, address or software.

    >>> Field("PFN", 12, 40, ADDRESS).mask == 0x000ffffffffff000
    True
    >>> Field("PFN", 12, 40, ADDRESS).get(0x8000000000012345)
    18
    """

    name: str
    shift: int
    width: int
    role: str = ""

    @property
    def mask(self) -> int:
        return ((1 << self.width) - 1) << self.shift

    def get(self, value: int) -> int:
        return (value >> self.shift) & ((1 << self.width) - 1)

    def text(self, value: int) -> str:
        """The field in words: its name if it has one bit, address bits at their place, other fields as they read."""
        if self.width == 1:
            return self.name
        return f"{self.name}={value & self.mask if self.role == ADDRESS else self.get(value):#x}"

    def put(self, value: int, x: int) -> int:
        """`value` with this field replaced by `x`; ValueError where `x` does not fit."""
        if not 0 <= x < 1 << self.width:
            raise ValueError(f"{self.name} has {self.width} bits, {x:#x} does not fit")
        return (value & ~self.mask) | (x << self.shift)


def bit(name: str) -> Renamed:
    """A one-bit field."""
    return name / Flag


def bits(name: str, width: int) -> Renamed:
    """A field of `width` bits, read as an unsigned integer."""
    return name / BitsInteger(width)


def address(name: str, width: int) -> Renamed:
    """Address bits: at their own place in the entry (bit n of the entry is bit n of the address) unless named apart."""
    return Renamed(BitsInteger(width), newname=name, newdocs=ADDRESS)


def software(name: str, width: int = 1) -> Renamed:
    """Bits that the hardware leaves to software."""
    return Renamed(BitsInteger(width) if width > 1 else Flag, newname=name, newdocs=SOFTWARE)


def res0(width: int = 1) -> Renamed:
    """Reserved bits, named RES0_<shift> by the layout."""
    return Renamed(BitsInteger(width), newname=RES0, newdocs=RES0)


def ignored(width: int = 1) -> Renamed:
    """Ignored bits, named IGN_<shift> by the layout."""
    return Renamed(BitsInteger(width), newname="IGN", newdocs=IGNORED)


class Layout(Mapping[str, Field]):
    """A named bit layout of 16 to 128 bits: a construct declaration and the masks read back from it.

    `title` is one line on what it is, `source` the manual's section. Mapping from field name to `Field`, bit 0 first.

    >>> pte = Layout("DEMO", bit("P"), bit("RW"), ignored(10), address("PFN", 40), res0(11), bit("XD"))
    >>> pte["XD"].shift, hex(pte.mask("P", "RW")), hex(pte.address_mask), hex(pte.role_mask(RES0))
    (63, '0x3', '0xffffffffff000', '0x7ff0000000000000')
    >>> pte.decode(0x8000000000012003)["PFN"], pte.build(P=1, PFN=18) == 0x12001
    (18, True)
    """

    def __init__(self, name: str, *fields: Renamed, title: str = "", source: str = "") -> None:
        self.name, self.title, self.source = name, title, source
        self._declared: list[Renamed] = []
        self._fields: dict[str, Field] = {}
        self._roles: dict[str, int] = {}
        shift = 0
        for sub in fields:
            if sub.name in (RES0, "IGN"):
                sub = Renamed(sub.subcon, newname=f"{sub.name}_{shift}", newdocs=sub.docs)
            field = Field(sub.name, shift, sub.sizeof(), sub.docs)
            self._declared.append(sub)
            self._fields[field.name] = field
            self._roles[field.role] = self._roles.get(field.role, 0) | field.mask
            shift += field.width
        if shift % 8:
            raise ValueError(f"{name}: {shift} bits declared, not whole bytes")
        if len(self._fields) != len(fields):
            raise ValueError(f"{name}: a field name stands twice")
        self.width = shift

    @cached_property
    def construct(self) -> Any:
        """The layout as construct has it: bit 63 first, in a little-endian word; slow to make, and few need it."""
        return ByteSwapped(BitStruct(*reversed(self._declared)))

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def mask(self, *names: str) -> int:
        """The OR of the named fields' masks."""
        result = 0
        for name in names:
            result |= self._fields[name].mask
        return result

    def role_mask(self, role: str) -> int:
        """The OR of the masks of all fields with this role (RES0, IGNORED, ADDRESS, SOFTWARE)."""
        return self._roles.get(role, 0)

    @property
    def address_mask(self) -> int:
        """The mask of the address fields."""
        return self.role_mask(ADDRESS)

    def decode(self, value: int) -> dict[str, int]:
        """All fields of `value`, bit 0 first, by shift and mask."""
        return {f.name: f.get(value) for f in self._fields.values()}

    def parse(self, value: int) -> dict[str, int]:
        """All fields of `value` as construct reads them: slow, the law that `decode` is tested against."""
        parsed = self.construct.parse(value.to_bytes(self.width // 8, "little"))
        return {name: int(parsed[name]) for name in self._fields}

    def build(self, **fields: int) -> int:
        """The value with the given fields and zeros elsewhere; KeyError: unknown field, ValueError: too wide."""
        value = 0
        for name, x in fields.items():
            value = self._fields[name].put(value, int(x))
        return value

    def flags(self, value: int) -> str:
        """The set fields in the manual's names, `P|RW|PFN=0x12`; bits no field names stay visible; zero prints `0`.

        >>> Layout("DEMO", bit("P"), bit("RW"), bits("PK", 4), ignored(10)).flags(0x8b)
        'P|RW|PK=0x2|IGN_6=0x2'
        """
        parts = [f.text(value) for f in self.values() if f.get(value)]
        parts += [f"{value >> self.width << self.width:#x}"] if value >> self.width else []
        return "|".join(parts) or "0"

    def __repr__(self) -> str:
        return f"<Layout {self.name}: {self.width} bits, {len(self)} fields>"


def merge(*layouts: Layout) -> dict[str, Layout]:
    """Layouts by name; ValueError where two share one."""
    table: dict[str, Layout] = {}
    for layout in layouts:
        if table.setdefault(layout.name, layout) is not layout:
            raise ValueError(f"two layouts are named {layout.name}")
    return table
