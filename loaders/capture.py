"""Captures of a live kernel: page tables, registers and what that kernel said of itself, at several checkpoints.

The format is that of `ptwalk capture` and of the captures in examples/captures; docs/formats describes it. Nothing is
read before it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.memory import PhysicalMemory
from .archive import Archive, open_archive
from .checked import Node
from .detect import detect

ARCH = {"x86": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
_CHECKPOINT = re.compile(r"cp(\d{1,4})/ptpages\.idx", re.ASCII)
_PFN_FILE = re.compile(r"kpage(count|flags|cgroup)\.([0-9a-f]{1,13})\.bin", re.ASCII)
_PAGE_SHIFTS = (12, 14, 16)
_MAX_LEVELS = 5


@dataclass(frozen=True, slots=True)
class Root:
    """A captured process: its tag, PID and root tables.

    `pgd_phys` is its root's physical address; `matching` lists every root that led to its user pages (with KPTI the
    kernel's and the user's half), `seen_in_user_mode` those that a CPU was seen using in user mode.
    """

    tag: str
    pid: int
    pgd_phys: int
    matching: tuple[int, ...] = ()
    seen_in_user_mode: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PagemapRange:
    """The captured part of an area: addresses `start` to `end` (half-open) have `count` entries from index `first`."""

    start: int
    end: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Pagemap:
    """The /proc/PID/pagemap entries (64 bits each) of a process, by area.

    `missing` are the addresses (start, end) of areas behind their last captured entry: a capture may stop early.
    """

    ranges: tuple[PagemapRange, ...]
    entries: memoryview
    missing: tuple[tuple[int, int], ...] = ()

    def is_missing(self, va: int) -> bool:
        """Whether an address lies in the part of an area that was not captured."""
        return any(start <= va < end for start, end in self.missing)


@dataclass(frozen=True, slots=True)
class PfnArray:
    """One 64-bit value for each page frame from `pfn_lo` on.

    >>> PfnArray(0x100, memoryview(bytes(16)).cast("Q")).get(0x101), PfnArray(0, memoryview(b"").cast("Q")).get(0)
    (0, None)
    """

    pfn_lo: int
    values: memoryview

    def get(self, pfn: int) -> int | None:
        """The value for a frame, None where the file does not reach."""
        i = pfn - self.pfn_lo
        return int(self.values[i]) if 0 <= i < len(self.values) else None


class Capture:
    """A capture as a directory or `.tar.xz`; `checkpoints` lists the checkpoint numbers it holds."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if detect(self.path) != "capture":
            raise InputError("no capture: neither a directory with meta.json nor a .tar.xz", file=self.path)
        self.archive: Archive = open_archive(self.path)
        self.meta = self._json("meta.json")
        name = self.meta["arch"].text()
        if name not in ARCH:
            raise self.meta["arch"].error("unknown architecture")
        self.arch = ARCH[name]
        self.page_shift = self._choice("page_shift", _PAGE_SHIFTS)
        self.levels = self._choice("levels", range(2, _MAX_LEVELS + 1))
        self.lpa2 = self.meta["lpa2"].boolean() if "lpa2" in self.meta else False
        self.checkpoints = tuple(sorted(int(m[1]) for m in map(_CHECKPOINT.fullmatch, self.archive.names) if m))
        if not self.checkpoints:
            raise InputError("the capture holds no checkpoint (cpN/ptpages.idx)", file=self.path)

    def _choice(self, name: str, allowed: range | tuple[int, ...]) -> int:
        node = self.meta[name]
        if node.integer() not in allowed:
            raise node.error(f"not one of {', '.join(map(str, allowed))}")
        return node.integer()

    def _json(self, name: str) -> Node:
        return Node.parse(bytes(self.archive.read(name)), f"{self.path}: {name}")

    @property
    def page_size(self) -> int:
        return 1 << self.page_shift

    @cached_property
    def kernel(self) -> str:
        """The kernel's release string, `uname -r`."""
        uname = self.meta["uname"].items()
        if len(uname) < 3:
            raise self.meta["uname"].error("does not hold a release")
        return uname[2].text()

    def checkpoint(self, number: int | None = None) -> Checkpoint:
        """A checkpoint by number; without one, the latest of those with the most processes."""
        if number is None:
            return max((Checkpoint(self, n) for n in self.checkpoints), key=lambda c: (len(c.roots), c.number))
        if number not in self.checkpoints:
            text = f"no such checkpoint (there are: {', '.join(map(str, self.checkpoints))})"
            raise InputError(text, file=self.path, field="checkpoint", value=number)
        return Checkpoint(self, number)


class Checkpoint:
    """One moment of a capture, the virtual machine stopped."""

    def __init__(self, capture: Capture, number: int) -> None:
        self.capture, self.number = capture, number

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds this file, `proc/A/smaps`."""
        return f"cp{self.number}/{name}" in self.capture.archive.names

    def read(self, name: str) -> memoryview:
        """The bytes of a file of this checkpoint; InputError where it is missing."""
        return self.capture.archive.read(f"cp{self.number}/{name}")

    def text(self, name: str) -> str:
        """A text file of this checkpoint; bytes that are no UTF-8 come as replacement characters."""
        return bytes(self.read(name)).decode("utf-8", "replace")

    def json(self, name: str) -> Node:
        """A JSON file of this checkpoint."""
        return Node.parse(bytes(self.read(name)), self.where(name))

    def where(self, name: str) -> str:
        """The file's name for error messages."""
        return f"{self.capture.path}: cp{self.number}/{name}"

    def words(self, name: str) -> memoryview:
        """A file of little-endian 64-bit words."""
        data = self.read(name)
        if len(data) % 8:
            raise InputError("not a whole number of 8-byte words", file=self.where(name), value=len(data))
        return data.cast("Q")

    @cached_property
    def roots(self) -> Mapping[str, Root]:
        """The captured processes by tag."""
        return {tag: _root(tag, node) for tag, node in self.json("roots.json").pairs() if not tag.startswith("__")}

    @cached_property
    def kernel_ttbr1(self) -> int | None:
        """arm64: the root of the kernel's half."""
        node = self.json("roots.json")
        return node["__kernel_ttbr1"]["pgd_phys"].hex() if "__kernel_ttbr1" in node else None

    @property
    def tags(self) -> tuple[str, ...]:
        """The processes whose pagemap was captured and whose root is known."""
        return tuple(tag for tag in self.roots if self.has(f"{tag}.pagemap.bin"))

    def memory(self) -> PhysicalMemory:
        """The captured page-table pages as physical memory; adjoining pages share a bank."""
        size = self.capture.page_size
        index, data = self.words("ptpages.idx"), self.read("ptpages.bin")
        if len(index) * size != len(data):
            text = f"{len(index)} pages of {size:#x} bytes are listed and the file holds {len(data):#x} bytes"
            raise InputError(text, file=self.where("ptpages.bin"))
        memory, first = PhysicalMemory(), 0
        for i, pa in enumerate(index):
            if pa % size or (i and pa <= index[i - 1]):
                text = "page addresses have to be aligned and to ascend"
                raise InputError(text, file=self.where("ptpages.idx"), offset=i * 8, value=pa)
            if i + 1 == len(index) or index[i + 1] != pa + size:
                self._add_bank(memory, index[first], data[first * size : (i + 1) * size])
                first = i + 1
        return memory

    def _add_bank(self, memory: PhysicalMemory, start: int, data: memoryview) -> None:
        try:
            memory.add_bytes(start, data, f"cp{self.number} page tables")
        except InputError as error:
            raise InputError(error.problem, file=self.where("ptpages.idx"), field=error.field, value=start) from error

    def pagemap(self, tag: str) -> Pagemap:
        """A process's pagemap; InputError where areas overlap or have more entries than pages or file."""
        entries = self.words(f"{tag}.pagemap.bin")
        name, shift = f"{tag}.pagemap.json", self.capture.page_shift
        ranges: list[PagemapRange] = []
        missing: list[tuple[int, int]] = []
        last = 0
        for node in self.json(name).items():
            fields = node.items()
            if len(fields) != 4:
                raise node.error("not [start, end, first entry, number of entries]")
            start, end, first, count = fields[0].hex(), fields[1].hex(), fields[2].integer(), fields[3].integer()
            if start > end or (start | end) % (1 << shift) or end >> 64:
                raise node.error("not an area of whole pages")
            if start < last:
                raise node.error("overlaps the area before it")
            if count > (end - start) >> shift or first + count > len(entries):
                raise node.error("the entries do not fit the area or the file")
            last, captured = end, start + (count << shift)
            ranges.append(PagemapRange(start, captured, first, count))
            missing += [(captured, end)] if captured < end else []
        return Pagemap(tuple(ranges), entries, tuple(missing))

    def pfn_array(self, kind: str) -> PfnArray | None:
        """`kpagecount`, `kpageflags` or `kpagecgroup` (kind: count, flags, cgroup); None where it was not captured."""
        prefix = f"cp{self.number}/"
        for name in sorted(self.capture.archive.names):
            match = _PFN_FILE.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
            if match and match[1] == kind:
                return PfnArray(int(match[2], 16), self.words(name.removeprefix(prefix)))
        return None

    def structpages(self) -> Mapping[int, bytes]:
        """The captured `struct page` (64 bytes each) by page frame number."""
        pfns, data = self.words("structpage.pfn"), self.read("structpage.bin")
        if len(data) != 64 * len(pfns):
            raise InputError("not 64 bytes for each frame listed", file=self.where("structpage.bin"), value=len(data))
        return {pfn: bytes(data[64 * i : 64 * i + 64]) for i, pfn in enumerate(pfns)}


def _root(tag: str, node: Node) -> Root:
    def hexes(name: str) -> tuple[int, ...]:
        return tuple(item.hex() for item in node[name].items()) if name in node else ()

    pid, pgd = node["pid"].integer(), node["pgd_phys"].hex()
    return Root(tag, pid, pgd, hexes("all_matching_roots"), hexes("seen_in_user_mode_cp5"))
