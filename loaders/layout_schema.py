"""The shape of a layout description, checked by msgspec: unknown fields and wrong types are refused with their path.

Addresses are integers or texts in hexadecimal (`0x` may be left out); sizes are integers or texts in decimal,
hexadecimal with `0x`, or with a unit (`4K`, `2M`, `1G`, `1T`). `_` separates digits.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..arch.errors import InputError

MAX_FILE = 1 << 22
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_WITH_UNIT = re.compile(r"([0-9]{1,20})([KMGT]?)", re.ASCII)
_HEX = re.compile(r"(?:0x)?([0-9a-f]{1,16})", re.ASCII | re.IGNORECASE)
_AT = re.compile(r"^(.*) - at `(?:key in )?\$\.?(.*)`$", re.DOTALL)

Address = Annotated[int | str, Meta(description="address: an integer, or a text in hexadecimal", examples=["0x40000"])]
Size = Annotated[int | str, Meta(description="size in bytes: an integer or a text such as 4K, 2M, 1G, 0x1000")]
Arch = Literal["x86_64", "arm64"]
Kind = Literal["anon", "file", "shmem", "ksm", "hugetlb_anon", "hugetlb_file"]
Rights = Annotated[str, Meta(pattern="^r[w-][x-]$", description="rwx with - for what is missing; r is always granted")]
Name = Annotated[str, Meta(min_length=1, max_length=64)]


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Bank(_Strict):
    """RAM from `start`, `size` bytes or up to `end` (exclusive)."""

    start: Address
    size: Size | None = None
    end: Address | None = None
    name: Name = "RAM"


class Tables(_Strict):
    """Where page tables are put, from `start`, `size` bytes."""

    start: Address
    size: Size


class Mapping(_Strict):
    """`size` bytes at `va` go to `pa`; `page_size` is one of the mode's or "largest" for the largest that fits."""

    va: Address
    pa: Address
    size: Size
    rights: Rights = "rw-"
    mode: Literal["user", "kernel"] = "user"
    page_size: Size = "largest"
    contiguous: bool = False
    global_: Annotated[bool, Meta(description="not flushed with the address space")] = msgspec.field(
        default=False, name="global"
    )
    memory_type: Annotated[int, Meta(ge=0, le=15, description="index into PAT or MAIR_EL1")] = 0
    name: str = ""


class Space(_Strict):
    """One address space and what it maps; `root` fixes the address of its root table."""

    name: Name
    pid: Annotated[int, Meta(ge=0)] | None = None
    root: Address | None = None
    mappings: list[Mapping] = []


class Folio(_Strict):
    """`count` neighbouring folios of `1 << order` pages from page frame `pfn` on."""

    pfn: Address
    order: Annotated[int, Meta(ge=0, le=30)] = 0
    kind: Kind = "anon"
    count: Annotated[int, Meta(ge=1, le=1 << 20)] = 1
    name: str = ""


class Layout(_Strict):
    """A machine described by hand: a paging mode (`preset`, or `arch` for its plainest), registers, memory, spaces."""

    memory: Annotated[list[Bank], Meta(min_length=1)]
    name: str = ""
    preset: str | None = None
    arch: Arch | None = None
    kernel: Annotated[str, Meta(description="Linux release by which software bits are read")] | None = None
    registers: dict[str, Address] = {}
    features: dict[str, int] = {}
    tables: Tables | None = None
    spaces: list[Space] = []
    folios: list[Folio] = []


def read_layout(path: Path) -> Layout:
    """Parse and check the shape; InputError names the line of a syntax error or the path of a wrong field."""
    try:
        if (size := path.stat().st_size) > MAX_FILE:
            raise InputError(f"larger than {MAX_FILE:#x} bytes: not a layout description", file=path, value=size)
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"taken for a layout description, but not TOML: {error}", file=path) from error
    try:
        return msgspec.convert(data, Layout)
    except (msgspec.ValidationError, RecursionError) as error:
        match = _AT.match(str(error))
        problem, where = (match[1], match[2]) if match else (str(error), "")
        raise InputError(problem[:1].lower() + problem[1:], file=path, field=where or None) from error


def schema() -> dict[str, Any]:
    """The JSON schema of a layout description, as committed in layout.schema.json."""
    return msgspec.json.schema(Layout)


def parse_address(value: int | str, file: object, field: str) -> int:
    """An address of at most 64 bits.

    >>> hex(parse_address("ffff_8000_0000_0000", "f", "va")), hex(parse_address("4G", "f", "va"))
    ('0xffff800000000000', '0x100000000')
    """
    if isinstance(value, str):
        digits = value.replace("_", "")
        match, unit = _HEX.fullmatch(digits), _WITH_UNIT.fullmatch(digits)
        if match is None and unit is None:
            raise InputError("not an address", file=file, field=field, value=value)
        number = int(match[1], 16) if match else int(unit[1]) * _UNITS[unit[2]] if unit else 0
    else:
        number = value
    if not 0 <= number < 1 << 64:
        raise InputError("not an address of 64 bits", file=file, field=field, value=value)
    return number


def parse_size(value: int | str, file: object, field: str) -> int:
    """A size in bytes, at least 1.

    >>> parse_size("2M", "f", "size"), parse_size("0x1000", "f", "size"), parse_size("4096", "f", "size")
    (2097152, 4096, 4096)
    """
    number = value
    if isinstance(value, str):
        digits = value.replace("_", "")
        unit = _WITH_UNIT.fullmatch(digits)
        if unit is not None:
            number = int(unit[1]) * _UNITS[unit[2]]
        elif digits.lower().startswith("0x") and (match := _HEX.fullmatch(digits)):
            number = int(match[1], 16)
        else:
            raise InputError("not a size (4096, 0x1000, 4K, 2M, 1G)", file=file, field=field, value=value)
    assert isinstance(number, int)
    if not 0 < number < 1 << 64:
        raise InputError("not a size of at least one byte", file=file, field=field, value=value)
    return number
