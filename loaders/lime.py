"""Memory dumps of LiME and AVML: a chain of ranges, each behind a 32-byte header.

LiME (magic `EMiL`, version 1): the range's bytes follow as they are. AVML (magic `AVML`, version 2): the bytes
follow in snappy's framing format and a little-endian u64 with the compressed length closes the range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from construct import Bytes, Padding, Struct

from ..arch.errors import InputError
from ..mmu.memory import PhysicalMemory
from .fields import Int32ul, Int64ul
from .raw import map_file

LIME_MAGIC, AVML_MAGIC = b"EMiL", b"AVML"
RANGE = Struct("magic" / Bytes(4), "version" / Int32ul, "s_addr" / Int64ul, "e_addr" / Int64ul, Padding(8))
_VERSIONS = {LIME_MAGIC: 1, AVML_MAGIC: 2}
_MAX_RANGES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Range:
    magic: bytes
    start: int
    size: int
    at: int


def is_lime(head: bytes) -> bool:
    """Whether a file that starts like this is a LiME or AVML dump."""
    return head[:4] in _VERSIONS


def read_lime(path: Path) -> PhysicalMemory:
    """The memory of a LiME or AVML dump, memory-mapped copy on write where it is not compressed."""
    data, memory = map_file(path), PhysicalMemory()
    at = 0
    for _ in range(_MAX_RANGES):
        if at == len(data):
            return memory
        entry = _header(path, data, at)
        if entry.magic == LIME_MAGIC:
            content, at = data[entry.at : entry.at + entry.size], entry.at + entry.size
        else:
            content, at = _decompress(path, data, entry)
        if len(content) != entry.size:
            text = f"the range should hold {entry.size:#x} bytes and holds {len(content):#x}"
            raise InputError(text, file=path, offset=entry.at)
        memory.add_bytes(entry.start, content, path.name)
    raise InputError(f"more than {_MAX_RANGES} ranges", file=path, offset=at)


def _header(path: Path, data: memoryview, at: int) -> _Range:
    if at + RANGE.sizeof() > len(data):
        raise InputError("the file ends inside a range header", file=path, offset=at)
    head = RANGE.parse(bytes(data[at : at + RANGE.sizeof()]))
    if _VERSIONS.get(head.magic) != head.version:
        raise InputError("no LiME or AVML range starts here", file=path, offset=at, value=head.magic)
    if head.e_addr < head.s_addr:
        raise InputError("the range ends before it starts", file=path, offset=at, field="e_addr", value=head.e_addr)
    return _Range(head.magic, head.s_addr, head.e_addr + 1 - head.s_addr, at + RANGE.sizeof())


def _decompress(path: Path, data: memoryview, entry: _Range) -> tuple[memoryview, int]:
    """One AVML range: its bytes, and where the next header stands."""
    try:
        import cramjam
    except ImportError:
        raise InputError("AVML dumps need snappy: install the extra `ptwalk[kdump]` (cramjam)", file=path) from None
    out, at = bytearray(), entry.at
    for kind, start, end in _frames(path, data, at):
        if kind in (0, 1) and len(out) < entry.size:
            body = bytes(data[start + 4 : end])
            try:
                out += body if kind == 1 else bytes(cramjam.snappy.decompress_raw(body))
            except cramjam.DecompressionError as error:
                raise InputError(f"a snappy frame does not open: {error}", file=path, offset=start) from error
        at = end
        if len(out) >= entry.size:
            break
    return memoryview(out), at + 8


def _frames(path: Path, data: memoryview, at: int) -> Iterator[tuple[int, int, int]]:
    """The chunks of a snappy stream from `at`: kind, first and last+1 byte of the body."""
    while at + 4 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "little")
        if at + 4 + size > len(data):
            raise InputError("a snappy frame runs beyond the file", file=path, offset=at, value=size)
        yield data[at], at + 4, at + 4 + size
        at += 4 + size
