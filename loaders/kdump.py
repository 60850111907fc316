"""Compressed kernel dumps (the diskdump format that makedumpfile and QEMU write), flattened ones included.

Layout read from makedumpfile's `diskdump_mod.h` (struct disk_dump_header, kdump_sub_header, page_desc) and its
IMPLEMENTATION notes: block 0 holds the header, then the sub-header, two bitmaps (page frames that exist, page frames
that were dumped), one descriptor for each dumped frame, and the pages. Pages stay compressed until they are touched.
"""

from __future__ import annotations

import bisect
import importlib
import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from construct import Bytes, ConstructError, Container, Padding, Struct

from ..arch.errors import InputError
from ..mmu.memory import DemandMemory
from .fields import Int32sl, Int32ul, Int64sb, Int64sl, Int64ul
from .vmcoreinfo import parse_vmcoreinfo

SIGNATURE = b"KDUMP   "
FLAT_SIGNATURE = b"makedumpfile\0\0\0\0"
_FLAT_HEADER_SIZE = 4096
_MAX_BLOCK_SIZE = 1 << 16

HEADER = Struct(
    "signature" / Bytes(8),
    "header_version" / Int32sl,
    "utsname" / Bytes(390),
    Padding(6),
    "timestamp" / Int64sl[2],
    "status" / Int32ul,
    "block_size" / Int32sl,
    "sub_hdr_size" / Int32sl,
    "bitmap_blocks" / Int32ul,
    "max_mapnr" / Int32ul,
    "total_ram_blocks" / Int32ul,
    "device_blocks" / Int32ul,
    "written_blocks" / Int32ul,
    "current_cpu" / Int32ul,
    "nr_cpus" / Int32sl,
)
SUB_HEADER = Struct(
    "phys_base" / Int64ul,
    "dump_level" / Int32sl,
    "split" / Int32sl,
    "start_pfn" / Int64ul,
    "end_pfn" / Int64ul,
    "offset_vmcoreinfo" / Int64ul,
    "size_vmcoreinfo" / Int64ul,
    "offset_note" / Int64ul,
    "size_note" / Int64ul,
    "offset_eraseinfo" / Int64ul,
    "size_eraseinfo" / Int64ul,
    "start_pfn_64" / Int64ul,
    "end_pfn_64" / Int64ul,
    "max_mapnr_64" / Int64ul,
)
PAGE_DESC = Struct("offset" / Int64ul, "size" / Int32ul, "flags" / Int32ul, "page_flags" / Int64ul)
FLAT_RECORD = Struct("offset" / Int64sb, "size" / Int64sb)

ZLIB, LZO, SNAPPY, ZSTD = 0x1, 0x2, 0x4, 0x20
_METHODS = {ZLIB: "zlib", LZO: "LZO", SNAPPY: "snappy", ZSTD: "zstd"}


class Source(Protocol):
    """Bytes at file offsets."""

    @property
    def path(self) -> Path: ...

    def read(self, offset: int, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PlainSource:
    """A dump file as it lies on disk, memory-mapped."""

    path: Path
    data: mmap.mmap

    def read(self, offset: int, size: int) -> bytes:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            text = f"{size} bytes are wanted here and the file ends at {len(self.data):#x}"
            raise InputError(text, file=self.path, offset=offset)
        return self.data[offset : offset + size]


class FlatSource:
    """A flattened dump: records of (offset, size, bytes) in the order of writing; a later record wins."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._plain = PlainSource(path, data)
        self._records: list[tuple[int, int, int]] = []
        at = _FLAT_HEADER_SIZE
        while True:
            record = _parse(FLAT_RECORD, self._plain, at, "flattened record")
            at += FLAT_RECORD.sizeof()
            if record.offset == -1 and record.size == -1:
                break
            if record.offset < 0 or record.size <= 0 or at + record.size > len(data):
                raise InputError("the flattened record runs beyond the file", file=path, offset=at, value=record.size)
            self._records.append((record.offset, record.size, at))
            at += record.size
        self._records.sort(key=lambda r: r[0])  # stable: of two records at one offset the later stands last
        self._starts = [r[0] for r in self._records]
        self._longest = max((r[1] for r in self._records), default=0)
        self._end = max((r[0] + r[1] for r in self._records), default=0)
        self.path = path

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the rearranged file; holes between records read as zero, as makedumpfile -R leaves them."""
        if offset < 0 or size < 0 or offset + size > self._end:
            text = f"{size} bytes are wanted here and the rearranged file ends at {self._end:#x}"
            raise InputError(text, file=self.path, offset=offset)
        out = bytearray(size)
        first = bisect.bisect_left(self._starts, offset - self._longest)
        last = bisect.bisect_left(self._starts, offset + size)
        for start, length, at in sorted(self._records[first:last], key=lambda r: r[2]):
            low, high = max(start, offset), min(start + length, offset + size)
            if low < high:
                out[low - offset : high - offset] = self._plain.read(at + low - start, high - low)
        return bytes(out)


def _parse(struct: Struct, source: Source, offset: int, what: str) -> Container:
    try:
        return struct.parse(source.read(offset, struct.sizeof()))
    except ConstructError as error:
        raise InputError(f"the {what} cannot be read: {error}", file=source.path, offset=offset) from error


@dataclass(frozen=True, slots=True)
class Kdump:
    """What a compressed dump holds. `notes` are the ELF notes of the CPUs, `vmcoreinfo` the kernel's own text."""

    memory: DemandMemory
    release: str
    machine: str
    phys_base: int
    notes: bytes
    vmcoreinfo: dict[str, str]


def read_kdump(path: Path) -> Kdump:
    """Open a compressed dump; InputError names the offset and field that cannot be right."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    flat = data[: len(FLAT_SIGNATURE)] == FLAT_SIGNATURE
    source: Source = FlatSource(path, data) if flat else PlainSource(path, data)
    header = _parse(HEADER, source, 0, "header")
    _check_header(header, path)
    block = header.block_size
    sub = _parse(SUB_HEADER, source, block, "sub-header")
    max_mapnr = sub.max_mapnr_64 if header.header_version >= 6 else header.max_mapnr
    bitmap_at = (1 + header.sub_hdr_size) * block
    half = header.bitmap_blocks * block // 2
    if max_mapnr > half * 8:
        raise InputError("the bitmap is shorter than max_mapnr", file=path, field="max_mapnr", value=max_mapnr)
    pages = _Pages(source, block, source.read(bitmap_at + half, half), bitmap_at + 2 * half, max_mapnr)
    words = [part.split(b"\0")[0].decode("ascii", "replace") for part in _utsname(header.utsname)]
    version = header.header_version
    info = source.read(sub.offset_vmcoreinfo, sub.size_vmcoreinfo) if version >= 3 and sub.size_vmcoreinfo else b""
    notes = source.read(sub.offset_note, sub.size_note) if version >= 4 and sub.size_note else b""
    memory = DemandMemory(block.bit_length() - 1, pages.extents(), pages.fetch)
    return Kdump(memory, words[2], words[4], sub.phys_base, notes, parse_vmcoreinfo(info))


def _check_header(header: Container, path: Path) -> None:
    if header.signature != SIGNATURE:
        raise InputError("not a diskdump header", file=path, offset=0, field="signature", value=header.signature)
    block = header.block_size
    if not 4096 <= block <= _MAX_BLOCK_SIZE or block & (block - 1):
        raise InputError("not a page size", file=path, field="block_size", value=block)
    if header.sub_hdr_size < 1:
        raise InputError("the sub-header is missing", file=path, field="sub_hdr_size", value=header.sub_hdr_size)


def _utsname(raw: bytes) -> list[bytes]:
    return [raw[i : i + 65] for i in range(0, 390, 65)]


class _Pages:
    """The dumped pages: which frames there are, where their descriptors stand, and how to open them."""

    _CHUNK = 512  # bytes of bitmap between two prefix sums

    def __init__(self, source: Source, block: int, bitmap: bytes, table_at: int, max_mapnr: int) -> None:
        self._source, self._block, self._bitmap, self._table_at = source, block, bitmap, table_at
        self._max_mapnr = max_mapnr
        self._before = [0]
        for i in range(0, len(bitmap), self._CHUNK):
            count = int.from_bytes(bitmap[i : i + self._CHUNK], "little").bit_count()
            self._before.append(self._before[-1] + count)

    def _index(self, pfn: int) -> int | None:
        byte, bit = divmod(pfn, 8)
        if pfn >= self._max_mapnr or not self._bitmap[byte] >> bit & 1:
            return None
        chunk = byte // self._CHUNK
        part = int.from_bytes(self._bitmap[chunk * self._CHUNK : byte], "little").bit_count()
        return self._before[chunk] + part + (self._bitmap[byte] & (1 << bit) - 1).bit_count()

    def extents(self) -> list[tuple[int, int]]:
        """The dumped frames as half-open address ranges."""
        runs: list[tuple[int, int]] = []
        for i, byte in enumerate(self._bitmap):
            if not byte:
                continue
            for pfn in (i * 8 + bit for bit in range(8) if byte >> bit & 1 and i * 8 + bit < self._max_mapnr):
                start = pfn * self._block
                if runs and runs[-1][1] == start:
                    runs[-1] = runs[-1][0], start + self._block
                else:
                    runs.append((start, start + self._block))
        return runs

    def fetch(self, pfn: int) -> bytes | None:
        """The bytes of a frame, or None where it was not dumped; InputError where they cannot be opened."""
        index = self._index(pfn)
        if index is None:
            return None
        at = self._table_at + index * PAGE_DESC.sizeof()
        desc = _parse(PAGE_DESC, self._source, at, "page descriptor")
        if not 0 < desc.size <= self._block:
            raise InputError("no page has this size", file=self._source.path, offset=at, field="size", value=desc.size)
        raw = self._source.read(desc.offset, desc.size)
        page = raw if not desc.flags & sum(_METHODS) else self._open(raw, desc.flags & sum(_METHODS), at)
        if len(page) != self._block:
            text = f"the page opens to {len(page)} bytes instead of {self._block}"
            raise InputError(text, file=self._source.path, offset=desc.offset)
        return page

    def _open(self, raw: bytes, method: int, at: int) -> bytes:
        if method not in _METHODS:
            raise InputError("two compressions at once", file=self._source.path, offset=at, field="flags", value=method)
        try:
            return _decompressor(method)(raw, self._block)
        except InputError:
            raise
        except Exception as error:  # each library has an exception of its own for bytes that do not open
            text = f"the {_METHODS[method]} page does not open: {error}"
            raise InputError(text, file=self._source.path, offset=at) from error


def _decompressor(method: int) -> Callable[[bytes, int], bytes]:
    if method == ZLIB:
        return lambda raw, size: zlib.decompressobj().decompress(raw, size)
    if method == LZO:
        opener = _library("lzallright", "LZO").LZOCompressor
        return lambda raw, size: bytes(opener.decompress(raw, output_size_hint=size))
    if method == SNAPPY:
        snappy = _library("cramjam", "snappy").snappy
        return lambda raw, size: bytes(snappy.decompress_raw(raw))
    zstd = _library("zstandard", "zstd")
    return lambda raw, size: bytes(zstd.ZstdDecompressor().decompress(raw, max_output_size=size))


def _library(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"this dump holds {what} pages: install the extra `ptwalk[kdump]` ({name})") from None
