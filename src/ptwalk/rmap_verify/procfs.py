"""The text files of /proc that a capture holds, as plain records; a line that does not parse is an InputError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..arch.errors import InputError

_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([-rwxsp]{4}) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+) *(.*)", re.ASCII)
_FIELD = re.compile(r"(\w+): +(\d{1,20})(?: kB)?", re.ASCII)
_MEMINFO = re.compile(r"([\w()]+): +(\d+)(?: kB)?", re.ASCII)
_COUNT = re.compile(r"(\w+)=(\d+)", re.ASCII)


@dataclass(frozen=True)
class SmapsVma:
    """One VMA of smaps (or the single record of smaps_rollup): its header, its lines in kB, its VmFlags.

    `text` is the record as the kernel printed it.
    """

    start: int
    end: int
    prot: str
    offset: int
    device: str
    inode: int
    name: str
    fields: dict[str, int]
    vm_flags: tuple[str, ...]
    text: str


def parse_smaps(text: str, file: str = "smaps") -> list[SmapsVma]:
    """The records of smaps or smaps_rollup in order; InputError names the line that does not parse.

    >>> vma = parse_smaps("1000-2000 rw-p 00000000 00:00 0 \\nRss:    4 kB\\nVmFlags: rd wr \\n")[0]
    >>> hex(vma.start), vma.fields, vma.vm_flags
    ('0x1000', {'Rss': 4}, ('rd', 'wr'))
    """
    records: list[SmapsVma] = []
    lines = text.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if _HEADER.match(line)]
    if not lines:  # the process had gone
        return []
    if not starts or starts[0]:
        raise InputError("not an smaps record", file=file, value=lines[0][:60].rstrip())
    for first, last in zip(starts, [*starts[1:], len(lines)], strict=True):
        records.append(_smaps_record(lines[first:last], file, first + 1))
    return records


def _smaps_record(lines: list[str], file: str, number: int) -> SmapsVma:
    header = _HEADER.match(lines[0])
    assert header is not None
    fields: dict[str, int] = {}
    vm_flags: tuple[str, ...] = ()
    for at, line in enumerate(lines[1:], number + 1):
        if line.startswith("VmFlags:"):
            vm_flags = tuple(line.split()[1:])
            continue
        match = _FIELD.fullmatch(line.rstrip())
        if match is None:
            raise InputError(f"line {at} does not parse", file=file, value=line[:60].rstrip())
        fields[match[1]] = int(match[2])
    start, end = int(header[1], 16), int(header[2], 16)
    if start > end:
        raise InputError(f"line {number}: the area ends before it starts", file=file, value=header[0][:60])
    offset, inode = int(header[4], 16), int(header[6])
    return SmapsVma(start, end, header[3], offset, header[5], inode, header[7], fields, vm_flags, "".join(lines))


@dataclass(frozen=True)
class NumaLine:
    """One line of numa_maps: address, policy, the file= name as printed (escaped), marks, counts."""

    start: int
    policy: str
    marks: tuple[str, ...]
    counts: dict[str, int]
    text: str


def parse_numa_maps(text: str, file: str = "numa_maps") -> list[NumaLine]:
    """The lines in order; InputError names the one that does not parse.

    >>> line = parse_numa_maps("7000 default stack anon=2 dirty=1 N0=2 kernelpagesize_kB=4\\n")[0]
    >>> line.marks, line.counts["N0"]
    (('stack',), 2)
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            address, policy, *rest = line.split(" ")
            start = int(address, 16)
        except ValueError:
            raise InputError(f"line {number} does not parse", file=file, value=line[:60]) from None
        pairs = [_COUNT.fullmatch(token) for token in rest]
        counts = {pair[1]: int(pair[2]) for pair in pairs if pair is not None}
        marks = tuple(token for token, pair in zip(rest, pairs, strict=True) if pair is None and token)
        found.append(NumaLine(start, policy, marks, counts, line))
    return found


def parse_meminfo(text: str) -> dict[str, int]:
    """meminfo's lines, in kB where they have a unit.

    >>> parse_meminfo("Active(anon):   12 kB\\nHugePages_Free:  4\\n")
    {'Active(anon)': 12, 'HugePages_Free': 4}
    """
    return {match[1]: int(match[2]) for match in map(_MEMINFO.fullmatch, text.splitlines()) if match}


@dataclass(frozen=True)
class Zones:
    """What zoneinfo tells: each node's frame ranges, and how far per-CPU statistics may lag behind, in pages."""

    nodes: tuple[tuple[int, int, int], ...] = ()
    stat_slack: int = 0

    def node(self, pfn: int) -> int | None:
        """The node of a frame, None if no zone spans it."""
        return next((node for low, high, node in self.nodes if low <= pfn < high), None)


@dataclass
class _Zone:
    node: int
    values: dict[str, int] = field(default_factory=dict)
    slack: int = 0


def parse_zoneinfo(text: str) -> Zones:
    """Frame ranges of the nodes, and the sum of every CPU's `vm stats threshold` at its largest zone of each node.

    >>> parse_zoneinfo("Node 1, zone DMA\\n  spanned 16\\n  start_pfn: 32\\n  vm stats threshold: 4\\n").node(40)
    1
    """
    zones: list[_Zone] = []
    for line in text.splitlines():
        header = re.match(r"Node (\d+), zone", line)
        if header:
            zones.append(_Zone(int(header[1])))
            continue
        value = re.fullmatch(r"\s+(spanned|start_pfn:|vm stats threshold:)\s*(\d+)", line)
        if value and zones:
            if value[1].startswith("vm"):
                zones[-1].slack += int(value[2])
            else:
                zones[-1].values[value[1].rstrip(":")] = int(value[2])
    nodes = tuple(_spans(zones))
    slack: dict[int, int] = {}
    for zone in zones:
        slack[zone.node] = max(slack.get(zone.node, 0), zone.slack)
    return Zones(nodes, sum(slack.values()))


def _spans(zones: list[_Zone]) -> Iterator[tuple[int, int, int]]:
    for zone in zones:
        start, pages = zone.values.get("start_pfn"), zone.values.get("spanned", 0)
        if start is not None and pages:
            yield start, start + pages, zone.node
