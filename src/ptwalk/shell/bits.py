"""Words whose fields are attributes: page-table entries and registers, read and edited under the manual's names."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from ..arch.errors import InputError
from ..arch.layout import ADDRESS, IGNORED, RES0, Field, Layout
from ..render import bit_diagram
from .shown import Line, Part, Shown

_APART = re.compile(r"_\d+_\d+$")  # address bits that stand at another place than in the address


class FieldError(InputError, AttributeError):
    """A name that is no field of this word."""


def diagram(layout: Layout, raw: int, *, before: int | None = None, software: Layout | None = None) -> Iterator[Line]:
    """A labelled bit diagram: zero fields faint, set reserved bits red, fields that differ from `before` marked.

    `software` names bits that the hardware leaves alone.

    >>> from ptwalk.arch.layout import bit, bits
    >>> for line in diagram(Layout("DEMO", bit("P"), bits("KEY", 7)), 5, before=4):
    ...     print("".join(part if isinstance(part, str) else part[0] for part in line))
    7       0
    0000.0101
    7:1    000.0010             KEY = 0x2
    0      1                    P = 1  (was 0)
    """
    text = bit_diagram(layout, raw).splitlines()
    fields = list(layout.values())[::-1]
    ruler, rows = text[: -len(fields)], text[-len(fields) :]
    for i, line in enumerate(ruler):
        yield [(line, "dim" if i % 2 == 0 else "bold")]
    for field, row in zip(fields, rows, strict=True):
        yield _row(field, row, raw, before, software)


def _row(field: Field, row: str, raw: int, before: int | None, software: Layout | None) -> Line:
    value = field.get(raw)
    changed = before is not None and field.get(before) != value
    style = "yellow" if changed else "bold red" if field.role == RES0 and value else "" if value else "dim"
    line: list[Part] = [(row, style)]
    theirs = [f for f in software.values() if f.role and f.mask & field.mask] if software is not None else []
    if theirs:
        line.append((f"  Linux: {', '.join(f'{f.name} = {f.get(raw)}' for f in theirs)}", style))
    if changed and before is not None:
        line.append((f"  (was {field.get(before):#x})" if field.width > 1 else f"  (was {field.get(before)})", style))
    return line


class Bits(Shown):
    """A word with named fields: reading an attribute reads the field, setting it edits the word.

    Address fields read as addresses, at their place; other fields as they stand. `raw` is the whole word.
    """

    raw: int  # a property of each kind

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Which fields there are."""

    @property
    def software(self) -> Layout | None:
        """Linux's names of bits that the hardware ignores; None where it has none."""
        return None

    @abstractmethod
    def assign(self, raw: int, what: str) -> None:
        """Write the whole word; `what` says in words which part was meant."""

    def field(self, name: str) -> Field:
        """The field of this name, the hardware's or Linux's; FieldError suggests near names, or lists all."""
        if name in self.layout:
            return self.layout[name]
        if self.software is not None and name in self.software and self.software[name].role:
            return self.software[name]
        named = [f.name for f in self.layout.values() if f.role not in (RES0, IGNORED)]
        near = get_close_matches(name.upper(), named, n=4, cutoff=0.4)
        hint = f"near: {', '.join(near)}" if near else f"it has {', '.join(named)}"
        raise FieldError(f"a {self.layout.name} has no such field ({hint})", field=name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        field = self.field(name)
        return self.raw & field.mask if _in_place(field) else field.get(self.raw)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        elif name == "raw":
            number = whole(value, self.layout)
            self.assign(number, f"raw = {short(number)}")
        else:
            number = whole(value, None)
            self.assign(put(self.field(name), self.raw, number), f"{name} = {short(number)}")

    def __dir__(self) -> list[str]:
        software = [f.name for f in self.software.values() if f.role] if self.software is not None else []
        return sorted({"raw", *self.layout, *software})

    def __int__(self) -> int:
        return self.raw

    __index__ = __int__


def short(number: int) -> str:
    """A digit as it is, longer numbers in hexadecimal."""
    return f"{number:#x}" if number > 9 else str(number)


def _in_place(field: Field) -> bool:
    return field.role == ADDRESS and not _APART.search(field.name)


def whole(value: Any, layout: Layout | None) -> int:
    """A number to write; InputError for anything else and for what does not fit the word."""
    if not isinstance(value, int) and not isinstance(value, Bits):
        raise InputError("not an integer", value=value)
    number = int(value)
    if layout is not None and (number < 0 or number >> layout.width):
        raise InputError(f"does not fit the {layout.width} bits of a {layout.name}", value=number)
    return number


def put(field: Field, raw: int, number: int) -> int:
    """`raw` with the field replaced: an address for an address field, a number for others; InputError if impossible.

    >>> hex(put(Field("ADDR", 12, 40, ADDRESS), 0x1067, 0x5000)), hex(put(Field("RW", 1, 1), 0x5065, 1))
    ('0x5067', '0x5067')
    """
    if _in_place(field):
        if number & ~field.mask:
            text = f"not an address that bits {field.shift + field.width - 1}:{field.shift} can hold"
            raise InputError(text, field=field.name, value=number)
        return raw & ~field.mask | number
    try:
        return field.put(raw, number)
    except ValueError:
        raise InputError(f"does not fit {field.width} bits", field=field.name, value=number) from None
