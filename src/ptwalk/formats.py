"""Address-space listings in the forms other tools print, for diffing against them.

`qemu-tlb` and `qemu-mem` are the lines of QEMU's `info tlb` and `info mem` for x86 (target/i386/monitor.c,
print_pte and mem_print); `csv`, `json` lines and Parquet hold one merged range a row.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Iterable, Iterator

from .arch.errors import InputError
from .mmu.spaces import Leaf, Range, ranges
from .mmu.walk import Rights

_TLB_FLAGS = {"X": "XD", "G": "G", "P": "PS", "D": "D", "A": "A", "C": "PCD", "T": "PWT", "U": "US", "W": "RW"}
_USER = Rights.UR | Rights.UW | Rights.UX
CSV_COLUMNS = ("va_start", "va_end", "pa", "page_size", "level", "rights", "flags")


def qemu_tlb(leaves: Iterable[Leaf]) -> Iterator[str]:
    """One line a leaf: address, physical address, its own bits `XGPDACTUW` (P: PS; a 4K entry's PAT is not shown)."""
    for leaf in leaves:
        letters = "".join(
            c if name in leaf.layout and leaf.layout[name].get(leaf.entry) else "-" for c, name in _TLB_FLAGS.items()
        )
        yield f"{leaf.va:016x}: {leaf.pa:016x} {letters}"


def qemu_mem(leaves: Iterable[Leaf]) -> Iterator[str]:
    """One line for each run of pages with equal user and write rights over the whole path."""
    now: tuple[int, int, str] | None = None
    for leaf in leaves:
        prot = ("u" if leaf.rights & _USER else "-") + "r" + ("w" if leaf.rights & Rights.KW else "-")
        if now is not None and (now[1], now[2]) == (leaf.va, prot):
            now = now[0], leaf.va + leaf.size, prot
            continue
        if now is not None:
            yield _mem_line(*now)
        now = leaf.va, leaf.va + leaf.size, prot
    if now is not None:
        yield _mem_line(*now)


def _mem_line(start: int, end: int, prot: str) -> str:
    return f"{start:016x}-{end & (1 << 64) - 1:016x} {end - start:016x} {prot}"


def row(r: Range) -> dict[str, str | int]:
    """One merged range as the columns of `CSV_COLUMNS`."""
    return {
        "va_start": f"{r.va:#x}",
        "va_end": f"{r.end:#x}",
        "pa": f"{r.pa:#x}",
        "page_size": 1 << r.level.shift,
        "level": r.level.number,
        "rights": r.rights.text(),
        "flags": r.layout.flags(r.flags),
    }


def as_csv(leaves: Iterable[Leaf]) -> Iterator[str]:
    """A header and one line a range; physical addresses go on within a range."""
    for cells in (CSV_COLUMNS, *(tuple(row(r).values()) for r in ranges(leaves, physical=True))):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(cells)
        yield line.getvalue()


LINES: dict[str, Callable[[Iterable[Leaf]], Iterator[str]]] = {
    "qemu-tlb": qemu_tlb,
    "qemu-mem": qemu_mem,
    "csv": as_csv,
}


def write_parquet(path: str, leaves: Iterable[Leaf]) -> None:
    """A Parquet file of ranges, addresses as unsigned 64-bit columns; needs the extra `ptwalk[parquet]`."""
    try:
        pyarrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError:
        raise InputError("Parquet output needs pyarrow: install the extra `ptwalk[parquet]`") from None
    found = list(ranges(leaves, physical=True))
    columns = {
        "va_start": pyarrow.array([r.va for r in found], pyarrow.uint64()),
        "size": pyarrow.array([r.size for r in found], pyarrow.uint64()),
        "pa": pyarrow.array([r.pa for r in found], pyarrow.uint64()),
        "page_size": pyarrow.array([1 << r.level.shift for r in found], pyarrow.uint64()),
        "level": pyarrow.array([r.level.number for r in found], pyarrow.int8()),
        "rights": pyarrow.array([int(r.rights) for r in found], pyarrow.uint8()),
        "flags": pyarrow.array([r.layout.flags(r.flags) for r in found]),
    }
    parquet.write_table(pyarrow.table(columns), path)
