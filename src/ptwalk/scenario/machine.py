"""The machine of a scenario: processes with real page tables, areas, files, folios and one accounting of all models."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from ..arch.errors import PtwalkError
from ..arch.linux import LinuxFlags, linux_for
from ..mmu.editor import Reason, TableEditor
from ..mmu.frames import FrameAllocator
from ..mmu.machine import regime_from_registers
from ..mmu.memory import PhysicalMemory
from ..rmap.calls import Accounting
from ..rmap.folio import Folio, Kind
from ..rmap.levels import ORDERS_BY_PAGE_SIZE, Level, Rules
from ..rmap.mm_id import Mm
from ..rmap.overflow import Limits
from ..rmap.runs import PageRuns
from ..rmap.views.inputs import PageEntry, State, Vma
from ..rmap.views.tables import CONT_PTES, ProcessTables
from .swapfile import SwapFile

_TABLES = 64 << 20
WRITE = LinuxFlags.WRITE
WRITTEN = LinuxFlags.WRITE | LinuxFlags.DIRTY
"""The flags of an entry after a write fault."""
_EPD1, _IPS_48 = 1 << 23, 5 << 32
ARCHES: dict[str, tuple[str, int, dict[str, int], dict[str, int]]] = {
    "x86_64": ("x86_64", 4096, {}, {}),
    "arm64-4k": ("arm64", 4096, {"TCR_EL1": 16 | _EPD1 | _IPS_48, "SCTLR_EL1": 1}, {"pamax": 48}),
    "arm64-16k": ("arm64", 16384, {"TCR_EL1": 17 | 2 << 14 | _EPD1 | _IPS_48, "SCTLR_EL1": 1}, {"pamax": 48}),
    "arm64-64k": ("arm64", 65536, {"TCR_EL1": 16 | 1 << 14 | _EPD1 | _IPS_48, "SCTLR_EL1": 1}, {"pamax": 48}),
}
"""Names a scenario may give with `arch`: architecture, page size, registers besides the root, processor properties."""


@dataclass
class Settings:
    """What stands above the first step."""

    arch: str = "x86_64"
    bits: int = 64
    literal: bool = False
    limits: dict[str, int] = field(default_factory=dict)

    def rules(self) -> Rules:
        """The accounting's rules."""
        page_size = ARCHES[self.arch][1]
        return Rules(ORDERS_BY_PAGE_SIZE[page_size], self.bits, page_size, self.literal, Limits(**self.limits))


@dataclass(eq=False)
class File:
    """A file's page cache: which folio holds which pages."""

    name: str
    kind: Kind
    nr_pages: int
    folios: dict[int, Folio] = field(default_factory=dict)

    def at(self, page: int) -> tuple[int, Folio] | None:
        """The first page and the folio that hold a page of the file."""
        starts = sorted(self.folios)
        nth = bisect_right(starts, page) - 1
        if nth < 0 or page >= starts[nth] + self.folios[starts[nth]].nr_pages:
            return None
        return starts[nth], self.folios[starts[nth]]


@dataclass(eq=False)
class Area:
    """A VMA as the scenario names it; pages that were unmapped (munmap) are set in `gone`."""

    name: str
    start: int
    nr_pages: int
    gone: PageRuns
    file: File | None = None
    offset: int = 0

    def copy(self) -> Area:
        """The child's copy at fork."""
        return Area(self.name, self.start, self.nr_pages, self.gone.copy(), self.file, self.offset)


@dataclass(frozen=True)
class Leaf:
    """One present entry: where it stands and what it maps.

    `page` is the folio's first page it maps, `flags` WRITE and DIRTY as far as set.
    """

    va: int
    level: Level
    folio: Folio
    page: int
    nr_pages: int
    flags: LinuxFlags

    @property
    def write(self) -> bool:
        """pte_write."""
        return LinuxFlags.WRITE in self.flags


class Process:
    """A process: its mm id, its areas, its page tables (written through a TableEditor only)."""

    def __init__(self, name: str, mm: Mm, editor: TableEditor, tables: ProcessTables, page_size: int) -> None:
        self.name, self.mm, self.editor, self.tables, self.page_size = name, mm, editor, tables, page_size
        self.areas: dict[str, Area] = {}

    def vmas(self) -> Collection[Vma]:
        """The VMAs in ascending order."""
        found = []
        for area in sorted(self.areas.values(), key=lambda area: area.start):
            flags = ("rd", "wr", "mr", "mw", "me", "ac") if area.file is None else ("rd", "sh", "mr", "mw", "me", "ms")
            name, inode = ("", 0) if area.file is None else (f"/{area.file.name}", 1)
            for first, n, gone in area.gone.runs():
                if not gone:
                    start = area.start + first * self.page_size
                    offset = (area.offset + first) * self.page_size if area.file else 0
                    vma = Vma(start, start + n * self.page_size, flags, name, offset, inode=inode)
                    vma.page_size = vma.mmu_page_size = self.page_size
                    found.append(vma)
        return found

    def entries(self, start: int, end: int) -> Iterator[PageEntry]:
        """The entries of a range that are not empty."""
        return self.tables.entries(start, end)

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that a table of PTEs covers."""
        return self.tables.pte_tables(start, end)


class Machine:
    """Memory, folios by frame, processes by name, and an accounting with all three models.

    >>> machine = Machine(Settings())
    >>> machine.process("A").mm.id
    1
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.arch, self.page_size, self._registers, self._features = ARCHES[settings.arch]
        self.acct = Accounting(rules=settings.rules())
        self.levels = self.acct.rules.levels
        self.memory = PhysicalMemory()
        self.memory.add_ram(0, _TABLES)
        self._frames = FrameAllocator(self.page_size, _TABLES, self.page_size)
        self._next_pfn = _TABLES // self.page_size
        self._starts: list[int] = []
        self._by_start: dict[int, Folio] = {}
        self.folios: dict[str, Folio] = {}
        self.freed: list[Folio] = []
        self.files: dict[str, File] = {}
        self.processes: dict[str, Process] = {}
        self.swap = SwapFile()

    # ---- folios (satisfies views.inputs.Frames)

    def new_folio(self, name: str, order: int, kind: Kind, *, fresh: bool | None = None) -> Folio:
        """A folio with naturally aligned frames, under a name."""
        size = 1 << order
        pfn = -(-self._next_pfn // size) * size
        self._next_pfn = pfn + size
        folio = self.acct.folio(order, kind, pfn, fresh=fresh)
        self.enter(name, folio)
        return folio

    def enter(self, name: str, folio: Folio) -> None:
        """Give a folio its name; it takes the place of an older one that begins at the same frame."""
        if folio.pfn not in self._by_start:
            self._starts.insert(bisect_right(self._starts, folio.pfn), folio.pfn)
        self._by_start[folio.pfn] = folio
        self.folios[name] = folio

    def name_of(self, folio: Folio) -> str:
        """The name of a living folio."""
        return next(name for name, known in self.folios.items() if known is folio)

    def unused_name(self, stem: str) -> str:
        """`stem`, or with a number behind it if it was taken."""
        names = [stem, *(f"{stem}.{nth}" for nth in range(2, len(self.folios) + len(self.freed) + 3))]
        return next(name for name in names if name not in self.folios)

    def forget(self, folio: Folio) -> None:
        """The folio is freed or was split; its name is free again."""
        self.freed.append(folio)
        del self.folios[self.name_of(folio)]

    def folio(self, pfn: int) -> Folio | None:
        """The folio that holds a frame."""
        at = bisect_right(self._starts, pfn) - 1
        if at < 0:
            return None
        folio = self._by_start[self._starts[at]]
        return folio if pfn < folio.pfn + folio.nr_pages else None

    def node(self, pfn: int) -> int:
        """All memory is on node 0."""
        return 0

    def is_reserved(self, pfn: int) -> bool:
        """No frame is reserved."""
        return False

    def swap_count(self, swap_type: int, swap_offset: int) -> int:
        """How many entries refer to a slot of the one swap file."""
        return self.swap.counts.get(swap_offset, 0)

    # ---- processes

    def process(self, name: str) -> Process:
        """A new process with empty tables."""
        root = self._frames.alloc()
        for offset in range(0, self.page_size, 16):
            self.memory.write_uint(root + offset, 0, 16)
        base = {"CR3": root} if self.arch == "x86_64" else {"TTBR0_EL1": root}
        regime = regime_from_registers(self.arch, base | self._registers, self._features)
        linux = linux_for(self.arch, "7.3", regime)
        editor = TableEditor(self.memory, regime, self._frames, space=name, linux=linux)
        tables = ProcessTables(self.memory, regime, linux)
        self.processes[name] = Process(name, self.acct.mm_ids.alloc(), editor, tables, self.page_size)
        return self.processes[name]

    def drop(self, process: Process) -> None:
        """The mm is gone: its id and its name may be used again."""
        self.acct.mm_ids.free(process.mm)
        del self.processes[process.name]

    # ---- entries

    def leaves(self, process: Process, start: int, end: int) -> list[Leaf]:
        """The present entries that map any part of a range of addresses, ascending."""
        found = []
        for entry in process.entries(start, end):
            if entry.state is State.SWAP:
                continue
            folio = self.folio(entry.pfn)
            if folio is None:
                raise PtwalkError(f"the entry at va {entry.va:#018x} maps frame {entry.pfn:#x}, which is no folio's")
            flags = WRITE if entry.write else LinuxFlags.NONE
            flags |= LinuxFlags.DIRTY if entry.dirty else LinuxFlags.NONE
            found.append(Leaf(entry.va, entry.level, folio, entry.pfn - folio.pfn, entry.nr_pages, flags))
        return found

    def install(
        self,
        process: Process,
        va: int,
        level: Level,
        folio: Folio,
        page: int,
        n: int,
        flags: LinuxFlags,
        reason: Reason = Reason.MAP,
    ) -> None:
        """Write the entries that map n pages of a folio at `level`; a full block of arm64 PTEs is folded."""
        flags |= LinuxFlags.USER | LinuxFlags.YOUNG
        editor, size = process.editor, self.levels.size(level)
        assert editor.linux is not None
        with editor.batch():
            for at in range(0, n, size):
                slot = editor.ensure(va + at * self.page_size, int(level))
                raw = editor.linux.page(slot.level.number, folio.pfn + page + at, flags)
                if level == Level.PTE and self._folds(va + at * self.page_size, folio, page + at, page, page + n):
                    raw = editor.linux.set(slot.level.number, raw, LinuxFlags.CONTIG)
                editor.write(slot, raw, reason)

    def _folds(self, va: int, folio: Folio, page: int, first: int, end: int) -> bool:
        """Whether a PTE belongs to a contpte block that is installed as a whole."""
        if self.arch != "arm64":
            return False
        block = CONT_PTES[self.page_size.bit_length() - 1]
        start = page - (va // self.page_size) % block
        return first <= start and start + block <= end and (folio.pfn + start) % block == 0

    def protect(self, process: Process, leaf: Leaf) -> None:
        """pte_wrprotect of an entry."""
        self._rewrite(process, leaf.va, clear=LinuxFlags.WRITE)

    def allow_write(self, process: Process, leaf: Leaf) -> None:
        """pte_mkwrite of an entry."""
        self._rewrite(process, leaf.va, set_=LinuxFlags.WRITE)

    def make_writable(self, process: Process, va: int) -> None:
        """An entry becomes writable and dirty, out of its contpte block if it was in one."""
        self.unfold(process, va, va + self.page_size)
        self._rewrite(process, va, set_=LinuxFlags.WRITE | LinuxFlags.DIRTY)

    def _rewrite(
        self,
        process: Process,
        va: int,
        *,
        set_: LinuxFlags = LinuxFlags.NONE,
        clear: LinuxFlags = LinuxFlags.NONE,
        reason: Reason = Reason.PROTECT,
    ) -> None:
        editor = process.editor
        assert editor.linux is not None
        slot = editor.lookup(va)
        raw = editor.linux.clear(slot.level.number, editor.read(slot), clear)
        editor.write(slot, editor.linux.set(slot.level.number, raw, set_), reason)

    def clear(self, process: Process, va: int, nr_bytes: int, reason: Reason = Reason.UNMAP) -> None:
        """Clear the entries of a range, contpte blocks that it cuts unfolded first, and free emptied tables."""
        editor = process.editor
        self.unfold(process, va, va + nr_bytes)
        with editor.batch():
            for slot in list(editor.slots(va, va + nr_bytes)):
                editor.write(slot, 0, reason)
            editor.prune(va, va + nr_bytes)

    def unfold(self, process: Process, start: int, end: int) -> None:
        """contpte_unfold: blocks of contiguous PTEs that either end of a range cuts lose the bit."""
        if self.arch != "arm64":
            return
        editor = process.editor
        assert editor.linux is not None
        block = CONT_PTES[self.page_size.bit_length() - 1] * self.page_size
        for edge in {start, end}:
            low = edge // block * block
            if edge == low:
                continue
            for slot in list(editor.slots(low, low + block)):
                flags = editor.linux.decode(slot.level.number, editor.read(slot)).flags
                if LinuxFlags.CONTIG in flags:
                    self._rewrite(process, slot.va, clear=LinuxFlags.CONTIG, reason=Reason.UNFOLD)

    def folded(self, process: Process, start: int, end: int) -> int:
        """How many entries of a range carry the contiguous bit."""
        linux = process.editor.linux
        assert linux is not None
        entries = process.tables.raw(start, end)
        return sum(LinuxFlags.CONTIG in linux.decode(entry.level.number, entry.raw).flags for entry in entries)
