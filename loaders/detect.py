"""What a file is, by its content: never by its name."""

from __future__ import annotations

import re
from pathlib import Path

from ..arch.errors import InputError
from .archive import XZ_MAGIC

_HEAD = 1 << 16
_MAGIC = {
    b"\x7fELF": "elf",
    XZ_MAGIC: "capture",
    b"EMiL": "lime",
    b"AVML": "lime",
    b"KDUMP   ": "kdump",
    b"makedumpfile\0\0\0\0": "kdump",
    b"\xd0\x0d\xfe\xed": "fdt",
}
_MEMORY_MAP = re.compile(rb"\A[0-9a-f]{8,16}-[0-9a-f]{8,16} : |BIOS-e820: \[mem 0x")
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0c")


def detect(path: Path) -> str | None:
    """The name of the format, a key of `loaders.FORMATS`, or None; InputError where nothing can be read."""
    if path.is_dir():
        if (path / "meta.json").is_file():
            return "capture"
        raise InputError("a directory without meta.json is no capture", file=path)
    head = _head(path)
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if b"\0" not in head and _MEMORY_MAP.search(head):
        return "memory map"
    return "layout" if _is_text(head) else None


def _head(path: Path) -> bytes:
    try:
        if not path.exists():
            raise InputError("no such file", file=path)
        if not path.is_file():
            raise InputError("neither a regular file nor a directory", file=path)
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except ValueError as error:  # a NUL in the name
        raise InputError("not a file name", value=str(path)) from error


def _is_text(head: bytes) -> bool:
    """Whether it reads as UTF-8 text (its last character may be cut) with at least one `=` or `[`."""
    if not head or any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in head):
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data" or error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return "=" in text or "[" in text
