"""A folder like /proc/PID, live or copied: maps, and pagemap and smaps where they are (fs/proc/task_mmu.c).

A copied pagemap keeps its offsets (8 bytes a page from address 0 on), so it is a sparse file; `cp` of the live one
copies nothing, since the kernel gives its size as 0.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.walk import Rights
from .listing import Listed, Listing

MAX_TEXT = 64 << 20
"""Bytes of a maps or smaps file that are still read."""
MAX_PAGES = 1 << 28
"""Pages (1 TiB of 4K) of all areas that are still looked up in pagemap."""

_MAPS = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][ps]) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ \d+ *(.*)")
_CHUNK = 1 << 16
_PRESENT, _SWAP, _FILE, _EXCLUSIVE, _SOFT_DIRTY = 1 << 63, 1 << 62, 1 << 61, 1 << 56, 1 << 55
_FRAME = (1 << 55) - 1
_WORDS = ((_FILE, "file"), (_EXCLUSIVE, "exclusive"), (_SOFT_DIRTY, "soft-dirty"))


@dataclass(frozen=True)
class _Area:
    start: int
    end: int
    rights: Rights
    letters: str
    name: str


def is_process_folder(path: Path) -> bool:
    """Whether a folder has a maps file and is no capture."""
    return (path / "maps").is_file() and not (path / "meta.json").is_file()


def read_process_folder(path: Path) -> Listing:
    """The pages that pagemap says are present, or the areas of maps where there is no pagemap.

    InputError names the file and the line or offset that cannot be.
    """
    areas = list(_areas(path / "maps"))
    page_size = _page_size(path)
    pagemap = path / "pagemap"
    if not pagemap.exists():
        rows = [Listed(a.start, a.end - a.start, a.rights, "", a.letters, a.name) for a in areas]
        return Listing(str(path), "/proc/PID", tuple(rows), ("no pagemap: whole areas are listed, mapped or not",))
    found, swapped, hidden = _present(pagemap, areas, page_size)
    notes = [f"{page_size >> 10}K pages"]
    notes += [f"{swapped} pages are in swap"] if swapped else []
    notes += [f"{hidden} frames are hidden (pagemap shows them to CAP_SYS_ADMIN only)"] if hidden else []
    return Listing(str(path), "/proc/PID", tuple(found), tuple(notes))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    if len(raw) > MAX_TEXT:
        raise InputError(f"larger than {MAX_TEXT >> 20} MiB", file=path)
    return raw.decode("utf-8", "replace")


def _areas(path: Path) -> Iterator[_Area]:
    last = 0
    for number, line in enumerate(_text(path).splitlines(), 1):
        match = _MAPS.fullmatch(line.rstrip())
        if match is None:
            raise InputError("not a line of maps", file=path, field=f"line {number}", value=line[:80])
        start, end = int(match[1], 16), int(match[2], 16)
        if start >= end or start < last:
            raise InputError("areas do not ascend", file=path, field=f"line {number}", value=start)
        last = end
        rights = Rights(0)
        for right, letter in zip((Rights.UR, Rights.UW, Rights.UX), match[3][:3], strict=True):
            rights |= right if letter != "-" else Rights(0)
        yield _Area(start, end, rights, match[3], match[4])


def _page_size(path: Path) -> int:
    """The smallest KernelPageSize that smaps names, 4K where there is no smaps."""
    smaps = path / "smaps"
    if not smaps.exists():
        return 4096
    sizes = [int(kb) << 10 for kb in re.findall(r"^KernelPageSize: +(\d+) kB$", _text(smaps), re.MULTILINE)]
    size = min(sizes, default=4096)
    if size not in (4096, 16384, 65536):
        raise InputError("not a page size that Linux has", file=smaps, field="KernelPageSize", value=size)
    return size


def _present(pagemap: Path, areas: list[_Area], page_size: int) -> tuple[list[Listed], int, int]:
    """Runs of present pages, how many pages are swapped out, how many frames are hidden."""
    rows: list[Listed] = []
    swapped = hidden = 0
    pages = sum(a.end - a.start for a in areas if a.start >> 63 == 0) // page_size
    if pages > MAX_PAGES:
        raise InputError(f"the areas have more than {MAX_PAGES} pages", file=pagemap.parent / "maps", value=pages)
    try:
        with pagemap.open("rb", buffering=0) as file:
            for area in areas:
                if area.start >> 63:
                    continue  # vsyscall: pagemap has the user half only
                for va, word in _words(file, area, page_size, pagemap):
                    swapped += bool(word & _SWAP and not word & _PRESENT)
                    if word & _PRESENT:
                        hidden += not word & _FRAME
                        _append(rows, _page(area, va, word, page_size))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=pagemap) from error
    return rows, swapped, hidden


def _words(file: FileIO, area: _Area, page_size: int, path: Path) -> Iterator[tuple[int, int]]:
    """(address, word) of every page of an area that has a word other than 0."""
    for first in range(area.start // page_size, area.end // page_size, _CHUNK):
        n = min(_CHUNK, area.end // page_size - first)
        file.seek(8 * first)
        raw = file.read(8 * n)
        if len(raw) != 8 * n:
            raise InputError("the file ends inside an area", file=path, offset=8 * first + len(raw), value=area.start)
        if raw.count(0) != len(raw):
            for nth, (word,) in enumerate(struct.iter_unpack("<Q", raw)):
                if word:
                    yield (first + nth) * page_size, word


def _page(area: _Area, va: int, word: int, page_size: int) -> Listed:
    text = " ".join([area.letters, *(name for bit, name in _WORDS if word & bit)])
    frame = word & _FRAME
    return Listed(va, page_size, area.rights, "", text, area.name, frame * page_size if frame else None)


def _append(rows: list[Listed], new: Listed) -> None:
    """Add a page; where it goes on from the last run in both address spaces it becomes part of that."""
    if rows:
        last = rows[-1]
        alike = (last.rights, last.text, last.section) == (new.rights, new.text, new.section)
        follows = last.end == new.va and (
            last.pa is None if new.pa is None else last.pa is not None and last.pa + last.size == new.pa
        )
        if alike and follows:
            rows[-1] = Listed(last.va, last.size + new.size, last.rights, "", last.text, last.section, last.pa)
            return
    rows.append(new)
