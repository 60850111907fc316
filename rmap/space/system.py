"""The system: memory, folios by frame and by name, files, swap, processes, and an accounting of all models."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count

from ...arch.linux import linux_for
from ...mmu.editor import EntryChange, TableEditor
from ...mmu.frames import FrameAllocator
from ...mmu.machine import regime_from_registers
from ...mmu.memory import PhysicalMemory
from ..calls import Accounting
from ..folio import Folio, Kind
from ..levels import ORDERS_BY_PAGE_SIZE, Rules
from ..overflow import Limits
from ..views.tables import ProcessTables
from .area import File
from .process import Process
from .swapfile import SwapFile

_TABLES = 64 << 20
_EPD1, _IPS_48 = 1 << 23, 5 << 32
_PE_PG_WP, _NXE_LMA_LME, _PAE, _LA57 = 0x80010001, 0xD00, 1 << 5, 1 << 12
ARCHES: dict[str, tuple[str, int, dict[str, int], dict[str, int]]] = {
    "x86_64": ("x86_64", 4096, {}, {}),
    "x86_64-5level": ("x86_64", 4096, {"CR0": _PE_PG_WP, "CR4": _PAE | _LA57, "EFER": _NXE_LMA_LME}, {}),
    "arm64-4k": ("arm64", 4096, {"TCR_EL1": 16 | _EPD1 | _IPS_48, "SCTLR_EL1": 1}, {"pamax": 48}),
    "arm64-16k": ("arm64", 16384, {"TCR_EL1": 17 | 2 << 14 | _EPD1 | _IPS_48, "SCTLR_EL1": 1}, {"pamax": 48}),
    "arm64-64k": ("arm64", 65536, {"TCR_EL1": 16 | 1 << 14 | _EPD1 | _IPS_48, "SCTLR_EL1": 1}, {"pamax": 48}),
}
"""Names of systems: architecture, page size, registers besides the root, processor properties."""
_ROOTS = {"x86_64": "CR3", "arm64": "TTBR0_EL1"}
ZERO_PFN = 0
"""The frame of the zero page."""


@dataclass
class Settings:
    """What a system is made of."""

    arch: str = "x86_64"
    bits: int = 64
    literal: bool = False
    limits: dict[str, int] = field(default_factory=dict)

    def rules(self) -> Rules:
        """The accounting's rules."""
        page_size = ARCHES[self.arch][1]
        return Rules(ORDERS_BY_PAGE_SIZE[page_size], self.bits, page_size, self.literal, Limits(**self.limits))


class System:
    """Memory, folios by frame, processes by name, and an accounting with all three models.

    Satisfies views.inputs.Frames and observer.CountedFrames. `isolated` counts references that neither a mapping nor
    a cache explains: folios taken off the LRU for migration. `listeners` hear of every batch of each process that is
    made after them.

    >>> system = System(Settings())
    >>> system.process("A").mm.id
    1
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.arch, self.page_size, self._registers, self._features = ARCHES[settings.arch]
        self.acct = Accounting(rules=settings.rules())
        self.levels = self.acct.rules.levels
        self.memory = PhysicalMemory()
        self.memory.add_ram(0, _TABLES)
        self.table_frames = FrameAllocator(self.page_size, _TABLES, self.page_size)
        self._next_pfn = _TABLES // self.page_size
        self._starts: list[int] = []
        self._by_start: dict[int, Folio] = {}
        self.folios: dict[str, Folio] = {}
        self._names: dict[Folio, str] = {}
        self.freed: list[Folio] = []
        self.isolated: Counter[Folio] = Counter()
        self.files: dict[str, File] = {}
        self.processes: dict[str, Process] = {}
        self.swap = SwapFile()
        self.listeners: list[Callable[[Process, Sequence[EntryChange]], None]] = []

    # ---- folios

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
        self._names[folio] = name

    def name_of(self, folio: Folio) -> str:
        """The name of a living folio."""
        return self._names[folio]

    def is_alive(self, folio: Folio) -> bool:
        """Whether a folio is neither freed nor split."""
        return folio in self._names

    def unused_name(self, stem: str) -> str:
        """`stem`, or with a number behind it if it was taken."""
        names = chain([stem], (f"{stem}.{nth}" for nth in count(2)))
        return next(name for name in names if name not in self.folios)

    def forget(self, folio: Folio) -> None:
        """The folio is freed or was split; its name is free again."""
        self.freed.append(folio)
        del self.folios[self._names.pop(folio)]

    def folio(self, pfn: int) -> Folio | None:
        """The folio that holds a frame."""
        at = bisect_right(self._starts, pfn) - 1
        if at < 0:
            return None
        folio = self._by_start[self._starts[at]]
        return folio if pfn < folio.pfn + folio.nr_pages else None

    def unreferenced(self, folio: Folio) -> None:
        """folio_put dropped the last reference: the folio is freed; its counters must be at their first values."""
        if not folio.pins and self.is_alive(folio):
            self.acct.free(folio)
            self.forget(folio)

    def put(self, folio: Folio, n: int) -> None:
        """folio_put_refs: drop n references; the last one frees the folio."""
        self.acct.put(folio, n)
        if not folio.refs:
            self.unreferenced(folio)

    def node(self, pfn: int) -> int:
        """All memory is on node 0."""
        return 0

    def is_reserved(self, pfn: int) -> bool:
        """No frame is reserved."""
        return False

    # ---- swap

    def swap_count(self, swap_type: int, swap_offset: int) -> int:
        """How many entries refer to a slot of the one swap file."""
        return self.swap.counts.get(swap_offset, 0)

    def count_swap(self, swap_type: int, swap_offset: int, n: int) -> None:
        """n more (or fewer) entries refer to a slot; a folio to whose slots none refers leaves the swap cache."""
        for _ in range(n):
            self.swap.duplicate(swap_offset)
        for _ in range(-n):
            folio = self.swap_cached(swap_offset)
            self.swap.drop(swap_offset)
            if folio is not None:
                self.free_swap(folio)

    def swap_cached(self, slot: int) -> Folio | None:
        """The folio in the swap cache that holds a slot."""
        pfn = self.swap.frames.get(slot)
        return None if pfn is None else self.folio(pfn)

    def free_swap(self, folio: Folio) -> None:
        """folio_free_swap: a folio to whose slots no entry refers leaves the swap cache."""
        if folio.in_swapcache and not self.swap.is_counted(folio):
            self.leave_swap_cache(folio)

    def leave_swap_cache(self, folio: Folio) -> None:
        """The folio leaves the swap cache; it is freed if nothing else references it."""
        self.swap.leave(folio)
        self.acct.set_swapcache(folio, False)
        if not folio.refs:
            self.unreferenced(folio)

    # ---- processes

    def process(self, name: str) -> Process:
        """A new process with empty tables."""
        root = self.table_frames.alloc()
        for offset in range(0, self.page_size, 16):
            self.memory.write_uint(root + offset, 0, 16)
        regime = regime_from_registers(self.arch, {_ROOTS[self.arch]: root} | self._registers, self._features)
        linux = linux_for(self.arch, "7.3", regime, device_private=True)
        editor = TableEditor(self.memory, regime, self.table_frames, space=name, linux=linux)
        tables = ProcessTables(self.memory, regime, linux, zero_pfn=lambda pfn: pfn == ZERO_PFN)
        process = Process(name, self.acct.mm_ids.alloc(), editor, tables, self)
        editor.observers += [partial(listener, process) for listener in self.listeners]
        self.processes[name] = process
        return process

    def drop(self, process: Process) -> None:
        """The mm is gone: its id and its name may be used again."""
        self.acct.mm_ids.free(process.mm)
        del self.processes[process.name]
