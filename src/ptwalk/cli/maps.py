"""`ptwalk maps FILE`."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..formats import LINES, write_parquet
from ..mmu.machine import Machine
from ..mmu.progress import tracked
from ..mmu.regime import Regime, Tree
from ..mmu.spaces import Broken, Range, leaves, ranges
from . import common, listed
from .source import DEFAULT, Source, choose, open_machine


def maps(
    file: Path,
    /,
    *,
    process: str | None = None,
    root: str | None = None,
    physical: bool = False,
    rights: str | None = None,
    size: str | None = None,
    pa: str | None = None,
    va: str | None = None,
    format: Literal["ptdump", "qemu-tlb", "qemu-mem", "csv", "json", "jsonl"] = "ptdump",
    parquet: Path | None = None,
    json: bool = False,
    jsonl: bool = False,
    source: Annotated[Source, Parameter(name="*")] = DEFAULT,
) -> int:
    """List a whole address space in the manner of ptdump: neighbours of equal size, rights and flags are one line.

    Args:
        file: A capture, ELF core, raw image, layout description, ptdump text or /proc/PID folder.
        process: Whose address space (see `ptwalk info`).
        root: Physical address of the root table instead.
        physical: Merge only where the physical addresses go on as well.
        rights: Only pages that grant these plain accesses: letters of rwx for the user, RWX for the kernel.
        size: Only pages of this size: 4K, 2M, 1G ...
        pa: Only pages that overlap this physical range: START-END or START+SIZE, in hexadecimal.
        va: Only pages that overlap this virtual range.
        format: ptdump, QEMU's `info tlb` or `info mem`, csv, json or jsonl.
        parquet: Write a Parquet file of this name instead (extra `ptwalk[parquet]`).
        json: The same as --format json (docs/json.md).
        jsonl: The same as --format jsonl.
    """
    other = None if format in ("ptdump", "json") else format
    listing = listed.opened(
        file, source, process=process, root=root, physical=physical, format=other, parquet=parquet, jsonl=jsonl
    )
    if listing is not None:
        return listed.maps(listing, rights, size, pa, va, json or format == "json")
    machine = open_machine(file, source, root)
    regime, label = choose(machine, process, root)
    broken: list[Broken] = []
    keep = common.leaf_filter(rights, size, pa, va)
    every = leaves(machine.memory, regime, report=broken.append)
    if parquet is not None or not sys.stdout.isatty():  # on a terminal the lines themselves show how far it is
        every = tracked(every, "leaves", every=4096)
    found = filter(keep, every)
    format = "json" if json else "jsonl" if jsonl else format
    json, jsonl = format == "json", format == "jsonl"
    if parquet is not None:
        write_parquet(str(parquet), found)
        return 0
    if format in LINES:
        for line in LINES[format](found):
            print(line)
        return 0
    rows = ranges(found, physical=physical)
    if json:
        common.print_json({**_head(machine, label), "ranges": [shape(r) for r in rows], "broken": _broken(broken)})
    elif jsonl:
        for row in rows:
            print(jsonlib.dumps(shape(row)))
    else:
        print(f"{machine.source}  {label}")
        for line in text_lines(regime, rows):
            print(line)
    if broken and not json:
        for b in broken:
            where = f"{b.entry_pa:#018x} => {b.entry:#018x} ({b.level.name})"
            print(f"warning: {b.va:#018x}: entry {where} leads nowhere: {b.reason}", file=sys.stderr)
    return 0


def _head(machine: Machine, label: str) -> dict[str, Any]:
    return {"file": machine.source, "arch": machine.arch, "space": label}


def _broken(entries: list[Broken]) -> list[dict[str, Any]]:
    return [
        {"va": hex(b.va), "level": b.level.number, "entry_pa": hex(b.entry_pa), "entry": hex(b.entry), "why": b.reason}
        for b in entries
    ]


def shape(row: Range) -> dict[str, Any]:
    """The stable JSON shape of one range (docs/json.md)."""
    return {
        "va_start": hex(row.va),
        "va_end": hex(row.end),
        "pa": hex(row.pa),
        "page_size": 1 << row.level.shift,
        "level": row.level.number,
        "rights": row.rights.text(),
        "flags": row.layout.flags(row.flags),
    }


def text_lines(regime: Regime, rows: Iterator[Range]) -> Iterator[str]:
    """One line a range, under a line for each tree."""
    tree: Tree | None = None
    for row in rows:
        if tree is None or row.va not in tree:
            tree = next(t for t in regime.trees if row.va in t)
            yield f"---[ {tree.register}: {tree.va_start:#018x}-{tree.va_end - 1:#018x} ]---"
        level = f"{row.level.name}/{row.level.linux_name}" if row.level.linux_name else row.level.name
        page, size = common.size(1 << row.level.shift), common.size(row.size)
        yield (
            f"{row.va:#018x}-{row.end:#018x} {size:>7} {page:>4} {level:<9} "
            f"{row.rights.text()}  {row.layout.flags(row.flags)}"
        )
