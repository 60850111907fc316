"""Fields of struct page and struct folio, read from raw bytes by the layout that pahole printed for that kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..arch.errors import InputError

PAGE_BYTES = 64
_MEMBER = re.compile(r"\s(\w+)(?:\[(\d+)\])?;\s*/\*\s*(\d+)\s+(\d+) \*/", re.ASCII)
_STRUCT = re.compile(r"struct (\w+) \{$", re.MULTILINE)
FOLIO_FIELDS = (
    *("_mapcount", "_refcount", "_large_mapcount", "_nr_pages_mapped", "_entire_mapcount", "_nr_pages"),
    *("_mm_id_mapcount", "_mm_id"),
)
"""Members of struct folio that accounting moves; 6.1 names `_entire_mapcount` `_total_mapcount` (compound_mapcount)."""
_RENAMED = {"_total_mapcount": "_entire_mapcount"}
_PG_DOUBLE_MAP = 1 << 6
"""PG_double_map, an alias of PG_workingset in the second page's flags, until 6.1 (include/linux/page-flags.h)."""
IDLE_CANDIDATES = range(18, 32)
"""Where PG_idle can stand in page flags: behind the flags every configuration has."""


@dataclass(frozen=True)
class Member:
    """A member: byte offset, bytes of one element, elements."""

    offset: int
    size: int
    count: int


def parse_layout(text: str, struct: str = "folio") -> dict[str, Member]:
    """The members of a struct in pahole's output by name; of equal names the first. Empty if it is not there.

    >>> parse_layout("struct folio {\\n\\tatomic_t   _mapcount;   /*    48     4 */\\n};\\n")["_mapcount"].offset
    48
    """
    starts = {match[1]: match.start() for match in _STRUCT.finditer(text)}
    if struct not in starts:
        return {}
    later = [start for start in starts.values() if start > starts[struct]]
    members: dict[str, Member] = {}
    for match in _MEMBER.finditer(text, starts[struct], min(later, default=len(text))):
        count = int(match[2] or 1)
        if count:
            members.setdefault(match[1], Member(int(match[3]), int(match[4]) // count, count))
    return {_RENAMED.get(name, name): member for name, member in members.items()}


class StructPages:
    """The captured struct pages of one checkpoint, and the fields their layout declares."""

    def __init__(self, pages: Mapping[int, bytes], layout: Mapping[str, Member]) -> None:
        self.pages = pages
        self.layout = {name: layout[name] for name in FOLIO_FIELDS if name in layout}
        for name, member in self.layout.items():
            if member.size not in (1, 2, 4, 8) or member.offset % PAGE_BYTES + member.size * member.count > PAGE_BYTES:
                raise InputError("the member does not lie inside one struct page", field=name, value=member.offset)

    def field(self, head: int, name: str, index: int = 0, *, signed: bool = True) -> int | None:
        """A member of the folio at `head`; None where the layout lacks it or its page was not captured."""
        member = self.layout.get(name)
        if member is None or index >= member.count:
            return None
        page = self.pages.get(head + member.offset // PAGE_BYTES)
        if page is None:
            return None
        at = member.offset % PAGE_BYTES + index * member.size
        return int.from_bytes(page[at : at + member.size], "little", signed=signed)

    def mapcount(self, pfn: int) -> int | None:
        """A page's own `_mapcount`."""
        return self.field(pfn, "_mapcount")

    def flags(self, pfn: int) -> int | None:
        """A page's flags word, the first of struct page in every kernel."""
        page = self.pages.get(pfn)
        return None if page is None else int.from_bytes(page[:8], "little")

    def double_map(self, head: int) -> bool:
        """PageDoubleMap of a kernel up to 6.1: every page of the folio carries one mapping more."""
        return bool((self.flags(head + 1) or 0) & _PG_DOUBLE_MAP)

    def idle_bit(self, idle: Mapping[int, bool]) -> int | None:
        """The bit number of PG_idle, found by comparing with kpageflags' IDLE (`idle`, by frame); None if unclear.

        The bit has to be set in nine of ten idle pages and clear in nine of ten others; PG_young is the bit below it.
        """
        words = [(flags, idle[pfn]) for pfn in idle if (flags := self.flags(pfn)) is not None]
        yes, no = [f for f, i in words if i], [f for f, i in words if not i]
        if not yes or not no:
            return None
        scores = {}
        for bit in IDLE_CANDIDATES:
            right = sum(f >> bit & 1 for f in yes) / len(yes), sum(not f >> bit & 1 for f in no) / len(no)
            if min(right) >= 0.9:
                scores[bit] = sum(right)
        return max(scores, key=lambda bit: (scores[bit], bit)) if scores else None
