"""What the commands say of a listing (ptdump text, a /proc/PID folder), which has no page tables to walk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from ..arch.errors import InputError
from ..loaders.listing import Listed, Listing, load_listing
from ..mmu.walk import Rights
from . import common
from .source import DEFAULT, Source


def opened(file: Path, source: Source, **given: object) -> Listing | None:
    """The listing in FILE, None where it is something else; InputError where options were given that it has not."""
    listing = load_listing(file)
    if listing is None:
        return None
    strange = [name for name, value in given.items() if value not in (None, False)]
    if strange or source != DEFAULT:
        text = f"a listing ({listing.format}) has no page tables and takes no such option"
        raise InputError(text, file=file, field=", ".join(f"--{name}" for name in strange) or None)
    return listing


def info(listing: Listing, json: bool) -> int:
    """What the listing is and how much it lists."""
    total = sum(row.size for row in listing.rows)
    if json:
        head = {"file": listing.source, "format": listing.format, "ranges": len(listing.rows), "bytes": hex(total)}
        common.print_json(head | {"notes": listing.notes})
        return 0
    print(
        f"{listing.source}: {listing.format}, {len(listing.rows)} ranges, {common.size(total)}; no page tables to walk"
    )
    for note in listing.notes:
        print(f"note: {note}")
    return 0


def maps(listing: Listing, rights: str | None, size: str | None, pa: str | None, va: str | None, json: bool) -> int:
    """The ranges, filtered."""
    keep = common.leaf_filter(rights, size, pa, va)
    if size is not None:
        raise InputError("a listing does not tell page sizes", field="--size", value=size)
    rows = [
        row
        for row in listing.rows
        if row.rights & keep.rights == keep.rights
        and (keep.va is None or (row.va < keep.va[1] and keep.va[0] < row.end))
        and (keep.pa is None or (row.pa is not None and row.pa < keep.pa[1] and keep.pa[0] < row.pa + row.size))
    ]
    if json:
        shapes = [shape(row) for row in rows]
        common.print_json({"file": listing.source, "format": listing.format, "ranges": shapes, "notes": listing.notes})
        return 0
    print(f"{listing.source}  {listing.format}; {'; '.join(listing.notes)}")
    section = None
    for row in rows:
        if row.section != section:
            section = row.section
            print(f"---[ {section} ]---")
        print(_line(row))
    return 0


def shape(row: Listed) -> dict[str, object]:
    """The stable JSON shape of one range (docs/json.md)."""
    return {
        "va_start": hex(row.va),
        "va_end": hex(row.end),
        "pa": None if row.pa is None else hex(row.pa),
        "level": row.level or None,
        "rights": row.rights.text(),
        "text": row.text,
        "section": row.section,
    }


def _line(row: Listed) -> str:
    frame = "" if row.pa is None else f" {row.pa:#018x}"
    level = f" {row.level:<3}" if row.level else ""
    return f"{row.va:#018x}-{row.end:#018x}{frame} {common.size(row.size):>7}{level} {row.rights.text()}  {row.text}"


def walk(listing: Listing, va: int, json: bool) -> int:
    """Where an address lies, as far as the listing tells."""
    row = listing.at(va)
    if json:
        common.print_json({"file": listing.source, "va": hex(va), "range": None if row is None else shape(row)})
        return 0 if row is not None else 1
    print(f"VA    {va:#018x}  {listing.source}  ({listing.format}: no page tables to walk)")
    if row is None:
        print("not listed")
        return 1
    print(_line(row) + (f"  [{row.section}]" if row.section else ""))
    if row.pa is None:
        print("PA    not told by this listing")
    else:
        print(f"PA    {row.pa + va - row.va:#018x}")
    return 0


def ptov(listing: Listing, pa: int, json: bool) -> int:
    """Which listed addresses lead to a physical one."""
    if not any(row.pa is not None for row in listing.rows):
        raise InputError("the listing tells no physical addresses", file=listing.source)
    found = [row.va + pa - row.pa for row in listing.rows if row.pa is not None and row.pa <= pa < row.pa + row.size]
    if json:
        rows = [{"space": listing.source, "va": hex(va), "page_size": None} for va in found]
        common.print_json({"file": listing.source, "arch": None, "pa": hex(pa), "mappings": rows})
    else:
        print(f"PA    {pa:#018x}  mapped {len(found)} times in {listing.source}")
        for va in found:
            print(f"  {va:#018x}")
    return 0 if found else 1


def lint(listing: Listing, json: bool) -> int:
    """What is writable and executable at once."""
    found = [row for row in listing.rows if _both(row.rights)]
    if json:
        rows = [{"rule": "w+x", "va": hex(row.va), "text": _line(row)} for row in found]
        common.print_json({"file": listing.source, "space": listing.format, "findings": rows})
    else:
        for row in found:
            print(f"{row.va:#018x}  w+x                    {_line(row)}")
        print(f"{len(found)} findings; a listing shows w+x only, the other rules need page tables")
    return 1 if found else 0


def _both(rights: Rights) -> bool:
    return any(rights & both == both for both in (Rights.KW | Rights.KX, Rights.UW | Rights.UX))


def diff(one: Listing, two: Listing, json: bool) -> int:
    """What two listings say differently."""
    changes = list(changed(one.rows, two.rows))
    if json:
        rows = [
            {
                "va_start": hex(start),
                "va_end": hex(end),
                "before": None if a is None else shape(a),
                "after": None if b is None else shape(b),
            }
            for start, end, a, b in changes
        ]
        common.print_json({"file": one.source, "other": two.source, "changes": rows})
    else:
        print(f"--- {one.source}  {one.format}\n+++ {two.source}  {two.format}")
        for start, end, a, b in changes:
            sign = "+" if a is None else "-" if b is None else "~"
            print(f"{sign} {start:#018x}-{end:#018x} {' -> '.join(_said(row, start) for row in (a, b) if row)}")
        print(f"{len(changes)} ranges differ")
    return 1 if changes else 0


def _said(row: Listed, va: int) -> str:
    frame = "" if row.pa is None else f"{row.pa + va - row.va:#018x} "
    return f"{frame}{row.level} {row.rights.text()} {row.text}".strip()


def changed(one: Iterable[Listed], two: Iterable[Listed]) -> Iterator[tuple[int, int, Listed | None, Listed | None]]:
    """(start, end, before, after) where two ascending listings differ, cut at each other's borders.

    >>> before, after = [Listed(0, 8, Rights.UR)], [Listed(0, 4, Rights.UR), Listed(4, 2, Rights.UW)]
    >>> [(start, end, b is not None) for start, end, _, b in changed(before, after)]
    [(4, 6, True), (6, 8, False)]
    """
    sides = [list(one), list(two)]
    borders = sorted({border for rows in sides for row in rows for border in (row.va, row.end)})
    at = [0, 0]
    for start, end in pairwise(borders):
        here: list[Listed | None] = []
        for side, rows in enumerate(sides):
            while at[side] < len(rows) and rows[at[side]].end <= start:
                at[side] += 1
            row = rows[at[side]] if at[side] < len(rows) else None
            here.append(row if row is not None and row.va <= start else None)
        if _content(here[0], start) != _content(here[1], start):
            yield start, end, here[0], here[1]


def _content(row: Listed | None, va: int) -> tuple[object, ...] | None:
    if row is None:
        return None
    return row.level, row.rights, row.text, row.section if row.pa is not None else "", _frame(row, va)


def _frame(row: Listed, va: int) -> int | None:
    return None if row.pa is None else row.pa + va - row.va
