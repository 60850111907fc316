"""Simulated physical memory: little-endian words at physical addresses of up to 56 bits.

Two kinds implement the `Memory` protocol: `PhysicalMemory`, banks of RAM (anonymous and demand-zero, or windows of a
memory-mapped file, copy on write), and `WordMemory`, a dictionary of words for test vectors. An access that no bank
backs is a `BusError` with the address.
"""

from __future__ import annotations

import bisect
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..arch.errors import BusError, InputError

PA_BITS = 56
MAP_NORESERVE = 0x4000  # Linux; absent from Python's mmap module before 3.13


class Memory(Protocol):
    """What a walker needs of memory. `size` is 4, 8 or 16 bytes; addresses are multiples of `size`."""

    def read_uint(self, pa: int, size: int = 8) -> int: ...

    def write_uint(self, pa: int, value: int, size: int = 8) -> None: ...


@dataclass(slots=True)
class Bank:
    """RAM at physical addresses `start` to `end` (half-open), backed by `data` (a writable view of unsigned bytes).

    `source` says where the bytes came from, for people; `private` is False where a write would reach a file.
    """

    start: int
    data: memoryview
    source: str = "RAM"
    keep: object = field(default=None, repr=False)

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class PhysicalMemory:
    """Banks of RAM in a sparse physical address space of `PA_BITS` bits.

    >>> ram = PhysicalMemory()
    >>> _ = ram.add_ram(0x4000_0000, 1 << 30)      # demand-zero: costs nothing until touched
    >>> ram.write_uint(0x4000_1000, 0x1234)
    >>> hex(ram.read_uint(0x4000_1000)), ram.backs(0x8000_0000)
    ('0x1234', False)
    >>> ram.read_uint(0x8000_0000)
    Traceback (most recent call last):
    ptwalk.arch.errors.BusError: no memory at physical address 0x0000000080000000 (8 bytes)
    """

    def __init__(self) -> None:
        self._banks: list[Bank] = []
        self._starts: list[int] = []

    @property
    def banks(self) -> tuple[Bank, ...]:
        """The banks in ascending order."""
        return tuple(self._banks)

    @property
    def extents(self) -> tuple[tuple[int, int], ...]:
        """The address ranges that memory backs, half-open, ascending, adjoining banks joined."""
        joined: list[tuple[int, int]] = []
        for bank in self._banks:
            if joined and joined[-1][1] == bank.start:
                joined[-1] = joined[-1][0], bank.end
            else:
                joined.append((bank.start, bank.end))
        return tuple(joined)

    def add_ram(self, start: int, size: int, source: str = "RAM") -> Bank:
        """Add `size` bytes of zeroed RAM; the host reserves nothing until it is touched."""
        self._check(start, size)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            backing = mmap.mmap(-1, size, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            raise InputError(f"this host cannot reserve {size:#x} bytes of RAM: {error}", field="size") from error
        return self._insert(Bank(start, memoryview(backing), source, backing))

    def add_bytes(self, start: int, data: bytes | bytearray | memoryview, source: str = "bytes") -> Bank:
        """Add a bank that holds a private copy of `data`, or `data` itself where it is a writable memoryview."""
        self._check(start, len(data))
        writable = isinstance(data, memoryview) and not data.readonly
        view = data if isinstance(data, memoryview) and writable else memoryview(bytearray(data))
        return self._insert(Bank(start, view.cast("B"), source, data))

    def _check(self, start: int, size: int) -> None:
        if size <= 0:
            raise InputError("a memory bank needs at least one byte", field="size", value=size)
        if start < 0 or start + size > 1 << PA_BITS:
            raise InputError(f"the bank ends beyond {PA_BITS} address bits", field="start", value=start)
        i = bisect.bisect_right(self._starts, start)
        for other in self._banks[max(0, i - 1) : i + 1]:
            if start < other.end and other.start < start + size:
                text = f"the bank {start:#x}-{start + size:#x} overlaps the bank {other.start:#x}-{other.end:#x}"
                raise InputError(text, field="start", value=start)

    def _insert(self, bank: Bank) -> Bank:
        i = bisect.bisect_right(self._starts, bank.start)
        self._banks.insert(i, bank)
        self._starts.insert(i, bank.start)
        return bank

    def _bank(self, pa: int) -> Bank | None:
        i = bisect.bisect_right(self._starts, pa) - 1
        return self._banks[i] if i >= 0 and pa < self._banks[i].end else None

    def _find(self, pa: int, size: int) -> tuple[memoryview, int]:
        bank = self._bank(pa)
        if bank is None or pa + size > bank.end:
            raise BusError(pa, size)
        return bank.data, pa - bank.start

    def backs(self, pa: int, size: int = 8) -> bool:
        """Whether one bank backs all of `pa` to `pa + size`."""
        try:
            self._find(pa, size)
        except BusError:
            return False
        return True

    def read_uint(self, pa: int, size: int = 8) -> int:
        """The little-endian unsigned integer of `size` bytes at `pa`; BusError where nothing backs it."""
        data, offset = self._find(pa, size)
        return int.from_bytes(data[offset : offset + size], "little")

    def write_uint(self, pa: int, value: int, size: int = 8) -> None:
        """Store `value` in `size` bytes at `pa`; BusError where nothing backs it. A file behind it stays untouched."""
        data, offset = self._find(pa, size)
        data[offset : offset + size] = value.to_bytes(size, "little")

    def window(self, pa: int, size: int) -> memoryview:
        """The bytes of one bank themselves, to read and write in place; BusError where no one bank backs them all."""
        data, offset = self._find(pa, size)
        return data[offset : offset + size]

    def read(self, pa: int, size: int) -> bytes:
        """`size` bytes from `pa`, through adjoining banks; BusError names the first address without RAM."""
        parts = []
        while size > 0:
            bank = self._bank(pa)
            if bank is None:
                raise BusError(pa, size)
            offset = pa - bank.start
            part = bytes(bank.data[offset : offset + size])
            parts.append(part)
            pa, size = pa + len(part), size - len(part)
        return b"".join(parts)


@dataclass(slots=True)
class WordMemory:
    """8-byte words by address; a word that is not listed reads as 0, as in the vector files.

    `reads` lists the addresses read so far, in order, where the caller wants the trace.

    >>> memory = WordMemory({0x1000: 0x2003})
    >>> memory.read_uint(0x1000), memory.read_uint(0x1004, 4), memory.read_uint(0x2000), [hex(a) for a in memory.reads]
    (8195, 0, 0, ['0x1000', '0x1004', '0x2000'])
    """

    words: dict[int, int]
    reads: list[int] = field(default_factory=list)

    def read_uint(self, pa: int, size: int = 8) -> int:
        self.reads.append(pa)
        get = self.words.get
        if size == 8:
            return get(pa, 0)
        if size == 16:
            return get(pa, 0) | get(pa + 8, 0) << 64
        return get(pa & ~7, 0) >> (pa & 4) * 8 & 0xFFFF_FFFF

    def write_uint(self, pa: int, value: int, size: int = 8) -> None:
        if size == 8:
            self.words[pa] = value
        elif size == 16:
            self.words[pa], self.words[pa + 8] = value & (1 << 64) - 1, value >> 64
        else:
            shift, word = (pa & 4) * 8, self.words.get(pa & ~7, 0)
            self.words[pa & ~7] = word & ~(0xFFFF_FFFF << shift) | value << shift


class DemandMemory(PhysicalMemory):
    """Memory whose pages are fetched when first touched, as from a compressed dump.

    `fetch(page number)` gives the bytes of a page of `1 << page_shift` bytes, or None where the source has none.
    `extents` lists what the source holds as half-open address ranges. `banks` fetches everything first.

    >>> ram = DemandMemory(12, [(0, 0x2000)], lambda page: bytes([page]) * 4096 if page < 2 else None)
    >>> hex(ram.read_uint(0x1000)), ram.backs(0x2000)
    ('0x101010101010101', False)
    """

    def __init__(
        self, page_shift: int, extents: Sequence[tuple[int, int]], fetch: Callable[[int], bytes | None]
    ) -> None:
        super().__init__()
        self._page_shift, self._extents, self._fetch = page_shift, tuple(extents), fetch

    @property
    def extents(self) -> tuple[tuple[int, int], ...]:
        return self._extents

    @property
    def banks(self) -> tuple[Bank, ...]:
        for start, end in self._extents:
            for pa in range(start, end, 1 << self._page_shift):
                self.backs(pa)
        return super().banks

    def _bank(self, pa: int) -> Bank | None:
        bank = super()._bank(pa)
        if bank is None and (page := self._fetch(pa >> self._page_shift)) is not None:
            bank = self.add_bytes(pa >> self._page_shift << self._page_shift, page, "page of a dump")
        return bank
