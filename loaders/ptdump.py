"""The text of /sys/kernel/debug/page_tables/* and kernel_page_tables.

A line is a range of equal entries: addresses, size, and the entries' level and attributes, in the order that each
architecture prints (arch/x86/mm/dump_pagetables.c, arch/arm64/mm/ptdump.c); without attributes nothing is mapped. A
boot log with the same lines behind time stamps is read too.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.walk import Rights
from .listing import Listed, Listing

MAX_BYTES = 256 << 20
"""A larger text is refused; a kernel with every page mapped on its own prints less."""

_STAMP = rb"(?:<\d+>)?(?:\[ *\d+\.\d+\] ?)?"
_LINE = re.compile(_STAMP + rb"\s*(?:0x)?([0-9a-f]{8,16})-(?:0x)?([0-9a-f]{8,16})\s+(\d+)([KMGTPE])(?:\s+(.*?))?\s*")
_SECTION = re.compile(_STAMP + rb"\s*---\[ (.+?) \]---\s*")
_UNITS = {unit: 1 << 10 * (nth + 1) for nth, unit in enumerate("KMGTPE")}
_LEVELS = {"pgd", "p4d", "pud", "pmd", "pte"}
_X86 = {"USR", "RW", "ro", "PWT", "PCD", "PSE", "PAT", "GLB", "NX", "x"}
_ARM64 = {"F", "USR", "ro", "RW", "NX", "x", "SHD", "AF", "NG", "CON", "BLK", "TBL", "UXN", "GP", "NC"}
_END = 1 << 64


def is_ptdump(head: bytes) -> bool:
    """Whether the first lines of a file are ptdump's: two ranges or headings among the first lines."""
    if b"\0" in head:
        return False
    rows = head.splitlines()[:2000]
    ranges = [row for row in rows if (found := _LINE.fullmatch(row)) and _level(found[5] or b"") is not None]
    return bool(ranges)


def _level(rest: bytes) -> str | None:
    """The level's name in the attributes of a line: last on x86, first on arm64."""
    words = rest.decode("ascii", "replace").split()
    for word in (words[-1:] + words[:1]) if words else []:
        if word.lower() in _LEVELS:
            return word
    return None


def read_ptdump(path: Path) -> Listing:
    """The ranges that a ptdump text says are mapped; InputError names the line that cannot be."""
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES >> 20} MiB", file=path, value=path.stat().st_size)
    rows: list[Listed] = []
    section, last, holes = "", 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if heading := _SECTION.fullmatch(line.strip()):
                section = heading[1].decode("utf-8", "replace")
                continue
            found = _LINE.fullmatch(line.rstrip())
            if found is None or _level(found[5] or b"") is None:
                continue  # a boot log has other lines
            row = _row(found, section, path, number)
            if row.va < last:
                text = "the range begins before the last one ended"
                raise InputError(text, file=path, field=f"line {number}", value=row.va)
            last = row.end
            if row.text:
                rows.append(row)
            else:
                holes += 1
    notes = (f"{holes} holes", "ptdump prints no physical addresses; rights are those of the last level's entries")
    return Listing(str(path), "ptdump text", tuple(rows), notes)


def _row(found: re.Match[bytes], section: str, path: Path, number: int) -> Listed:
    field = f"line {number}"
    start, end = int(found[1], 16), int(found[2], 16) or _END
    size = int(found[3]) * _UNITS[found[4].decode()]
    if start >= end or end - start != size:
        said = f"{int(found[3])}{found[4].decode()}"
        raise InputError(f"the range has not the {said} that the line says", file=path, field=field, value=end - start)
    words = found[5].decode("ascii", "replace").split()
    arm64 = words[0].lower() in _LEVELS and words[0].isupper()
    level = words.pop(0 if arm64 else -1).upper()
    unknown = [word for word in words if word not in (_ARM64 if arm64 else _X86) and "/" not in word]
    if unknown:
        raise InputError("not an attribute that ptdump prints", file=path, field=field, value=unknown[0])
    return Listed(start, size, _rights(words, arm64), level, " ".join(words), section)


def _rights(words: list[str], arm64: bool) -> Rights:
    """The plain accesses that the entries allow; a user page's kernel rights depend on what no line tells."""
    if not words or "F" in words:
        return Rights(0)
    user = "USR" in words
    execute = "UXN" not in words if arm64 and user else "NX" not in words
    rights = Rights.UR if user else Rights.KR
    rights |= (Rights.UW if user else Rights.KW) if "RW" in words else Rights(0)
    return rights | ((Rights.UX if user else Rights.KX) if execute else Rights(0))
