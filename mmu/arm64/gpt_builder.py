"""Builds granule protection tables: level 0 blocks, level 1 granules, contiguous runs where they fit (Arm ARM D9.4)."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...arch.arm64.registers import LAYOUTS
from ...arch.errors import InputError
from ..memory import Memory
from .features import PA_SIZES
from .gpt import BLOCK, CONTIGUOUS, CONTIGUOUS_SIZE, GPI_ANY, GPI_NAMES, GRANULE, L0_SIZE, TABLE

_PGS = {granule: code for code, granule in GRANULE.items()}
_L0GPTSZ = {size: code for code, size in L0_SIZE.items()}
_NIBBLES = 0x1111_1111_1111_1111


class GptRange(NamedTuple):
    """Physical addresses `start` to `end` (half-open) with one granule protection information value (GPI_...)."""

    start: int
    end: int
    gpi: int


class GptShape(NamedTuple):
    """The sizes that GPCCR_EL3 encodes, log2 of bytes: protected space, granule, coverage of a level 0 entry."""

    pps: int = 40
    granule: int = 12
    l0_size: int = 30

    @property
    def l0_bytes(self) -> int:
        """The size of the level 0 table, which is also its alignment, at least 4 KiB."""
        return max(8 << max(self.pps - self.l0_size, 0), 4096)

    @property
    def l1_bytes(self) -> int:
        """The size and alignment of a level 1 table."""
        return 8 << self.l0_size - self.granule - 4

    def registers(self, base: int) -> dict[str, int]:
        """GPCCR_EL3 and GPTBR_EL3 that put a table at `base` in force, walks cacheable and inner shareable."""
        control = LAYOUTS["GPCCR_EL3"].build(
            PPS=PA_SIZES.index(self.pps), PGS=_PGS[self.granule], L0GPTSZ=_L0GPTSZ[self.l0_size], GPC=1,
            SH=3, IRGN=1, ORGN=1,
        )  # fmt: skip
        return {"GPCCR_EL3": control, "GPTBR_EL3": base >> 12}


class _Map:
    """The GPI of every address, as sorted boundaries."""

    def __init__(self, ranges: Iterable[GptRange], shape: GptShape, default: int) -> None:
        self.starts, self.values = [0], [default]
        step, end = 1 << shape.granule, 0
        for part in sorted(ranges):
            if part.gpi not in GPI_NAMES:
                raise InputError("no such granule protection information", field="gpi", value=part.gpi)
            if part.start % step or part.end % step or part.end <= part.start:
                text = f"a range is not made of whole granules of {step:#x} bytes"
                raise InputError(text, field="start", value=part.start)
            if part.start < end:
                raise InputError("two ranges overlap", field="start", value=part.start)
            end = part.end
            if end > 1 << shape.pps:
                raise InputError(f"a range ends beyond the protected {shape.pps} bits", field="end", value=end)
            self._put(part.start, part.gpi)
            self._put(part.end, default)

    def _put(self, start: int, gpi: int) -> None:
        if self.starts[-1] == start:
            self.starts.pop()
            self.values.pop()
        self.starts.append(start)
        self.values.append(gpi)

    def at(self, pa: int) -> int:
        """The GPI of one address."""
        return self.values[bisect.bisect_right(self.starts, pa) - 1]

    def uniform(self, start: int, end: int) -> int | None:
        """The one GPI of a range, None where there are several."""
        first, last = bisect.bisect_right(self.starts, start) - 1, bisect.bisect_left(self.starts, end) - 1
        found = set(self.values[first : last + 1])
        return found.pop() if len(found) == 1 else None


def build_gpt(
    memory: Memory,
    base: int,
    allocate: Callable[[int], int],
    ranges: Iterable[GptRange],
    shape: GptShape | None = None,
    default: int = GPI_ANY,
) -> dict[str, int]:
    """Write a granule protection table at `base` and return the registers that use it.

    `allocate(size)` gives the address of a new level 1 table, aligned to its size. Addresses outside `ranges` get
    `default`. InputError: overlapping, misaligned or unknown ranges, or a misaligned table.

    >>> from ..memory import WordMemory
    >>> words = WordMemory({})
    >>> tables = iter([0x20_0000])
    >>> secret = GptRange(0x4000_0000, 0x4020_0000, 11)
    >>> registers = build_gpt(words, 0x1_0000, lambda size: next(tables), [secret], GptShape(32))
    >>> hex(words.words[0x1_0000]), hex(words.words[0x1_0008]), hex(words.words[0x20_0000])
    ('0xf1', '0x200003', '0x1b1')
    """
    shape = shape or GptShape()
    protection = _Map(ranges, shape, default)
    if base % shape.l0_bytes:
        raise InputError(f"the level 0 table has to be aligned to {shape.l0_bytes:#x}", field="base", value=base)
    for index in range(1 << max(shape.pps - shape.l0_size, 0)):
        start = index << shape.l0_size
        gpi = protection.uniform(start, start + (1 << shape.l0_size))
        if gpi is None:
            table = allocate(shape.l1_bytes)
            _fill(memory, table, protection, shape, start)
        memory.write_uint(base + 8 * index, table | TABLE if gpi is None else gpi << 4 | BLOCK)
    return shape.registers(base)


def _fill(memory: Memory, table: int, protection: _Map, shape: GptShape, start: int) -> None:
    """One level 1 table: the largest contiguous run that is uniform around each entry, else 16 granules."""
    if table % shape.l1_bytes:
        raise InputError(f"a level 1 table has to be aligned to {shape.l1_bytes:#x}", field="table", value=table)
    covered = shape.granule + 4
    for index in range(1 << shape.l0_size - covered):
        pa = start + (index << covered)
        memory.write_uint(table + 8 * index, _entry(protection, shape, pa))


def _entry(protection: _Map, shape: GptShape, pa: int) -> int:
    for code in (3, 2, 1):
        size = CONTIGUOUS_SIZE[code]
        first = pa >> size << size
        gpi = protection.uniform(first, first + (1 << size)) if size <= shape.l0_size else None
        if gpi is not None:
            return code << 8 | gpi << 4 | CONTIGUOUS
    gpi = protection.uniform(pa, pa + (16 << shape.granule))
    if gpi is not None:
        return gpi * _NIBBLES
    return sum(protection.at(pa + (i << shape.granule)) << 4 * i for i in range(16))
