"""What several commands share: addresses as people write them, JSON as documented, the machine behind FILE."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..arch.errors import InputError
from ..mmu.walk import Rights

if TYPE_CHECKING:
    from ..queries import Filter

_RIGHTS = dict(zip("RWXrwx", Rights, strict=True))
_SUFFIX = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def address(text: str, field: str = "address") -> int:
    """An address as people write it: hex with or without 0x, `_` as separator; InputError names the field.

    >>> [hex(address(t)) for t in ("0x7f5e_4955_7000", "ffffffff81000000")]
    ['0x7f5e49557000', '0xffffffff81000000']
    """
    digits = text.replace("_", "").lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,16}", digits):
        raise InputError("not a 64-bit hexadecimal address", field=field, value=text)
    return int(digits, 16)


def value(text: str, bits: int, field: str = "value") -> int:
    """An entry or register value: `0x...` or bare hex, at most `bits` wide."""
    digits = text.replace("_", "").lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        raise InputError("not a hexadecimal value", field=field, value=text)
    if (number := int(digits, 16)) >> bits:
        raise InputError(f"does not fit {bits} bits", field=field, value=number)
    return number


def size(number: int) -> str:
    """A size in the largest binary unit that divides it.

    >>> size(4096), size(2 << 20), size(3 << 30), size(100)
    ('4K', '2M', '3G', '100')
    """
    for letter, unit in reversed(_SUFFIX.items()):
        if number and number % unit == 0:
            return f"{number // unit}{letter}"
    return str(number)


def page_size(text: str) -> int:
    """A size as people write it.

    >>> [page_size(t) for t in ("4K", "2m", "0x1000", "64")]
    [4096, 2097152, 4096, 64]
    """
    unit = _SUFFIX.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    try:
        return int(digits, 0) * unit
    except ValueError:
        raise InputError("not a size such as 4K, 2M or 0x1000", field="size", value=text) from None


def address_range(text: str, field: str) -> tuple[int, int]:
    """START-END (half-open) or START+SIZE as a pair of addresses.

    >>> address_range("0x1000-2000", "pa"), address_range("1000+4K", "pa")
    ((4096, 8192), (4096, 8192))
    """
    start, plus, length = text.partition("+")
    if plus:
        first = address(start, field)
        return first, first + page_size(length)
    start, minus, end = text.partition("-")
    if not minus:
        raise InputError("not of the form START-END or START+SIZE", field=field, value=text)
    return address(start, field), address(end, field)


def leaf_filter(rights: str | None, size: str | None, pa: str | None, va: str | None) -> Filter:
    """The filter that --rights, --size, --pa and --va ask for."""
    from ..queries import NO_RIGHTS, Filter

    wanted = NO_RIGHTS
    for letter in rights or "":
        if letter not in _RIGHTS:
            raise InputError("letters of rwx (user) and RWX (kernel)", field="--rights", value=rights)
        wanted |= _RIGHTS[letter]
    return Filter(
        rights=wanted,
        size=None if size is None else page_size(size),
        pa=None if pa is None else address_range(pa, "--pa"),
        va=None if va is None else address_range(va, "--va"),
    )


def hexadecimal(x: int | None) -> str | None:
    """64-bit values as strings, since JSON readers lose their low bits."""
    return None if x is None else f"{x:#x}"


def print_json(shape: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    json.dump(shape, sys.stdout, indent=2)
    print()
