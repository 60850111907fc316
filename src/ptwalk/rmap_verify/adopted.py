"""One checkpoint of a capture, adopted: its processes and folios under the accounting models, and what /proc said."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ..arch.errors import InputError
from ..arch.linux import PFN_KINDS, EntryKind, LinuxEntry, linux_for
from ..arch.linux_proc import KPF
from ..loaders.capture import Capture, Checkpoint, PfnArray
from ..loaders.capture_machine import machine_of
from ..mmu.machine import Machine
from ..rmap.adopt import AdoptedProcess, KernelFacts, KernelFrames, adopt
from ..rmap.calls import Accounting
from ..rmap.levels import ORDERS_BY_PAGE_SIZE, Rules
from ..rmap.models import Model
from ..rmap.views.inputs import Vma
from ..rmap.views.rules import ProcRules, Release, parse_release, proc_rules
from ..rmap.views.tables import ProcessTables, shared_pmd_tables
from .procfs import NumaLine, SmapsVma, parse_meminfo, parse_numa_maps, parse_smaps, parse_zoneinfo
from .structs import StructPages, parse_layout

MODELS = ("precise", "no-page-mapcount")
_MAX_CONFIG = 1 << 24
_IDLE, _HWPOISON = KPF.mask("IDLE"), KPF.mask("HWPOISON")
_NOT_A_FOLIO = KPF.mask("COMPOUND_TAIL", "RESERVED")


@dataclass(frozen=True)
class Kernel:
    """What of the captured kernel decides how it counts: release, configuration where captured, struct layout."""

    release: str
    version: Release
    rules: ProcRules
    config: Mapping[str, str]
    struct_layout: str
    device_private: bool

    @classmethod
    def of(cls, capture: Capture) -> Kernel:
        """Read it from a capture."""
        config = _config(capture)
        has = "struct_layout.txt" in capture.archive.names
        layout = bytes(capture.archive.read("struct_layout.txt")).decode("utf-8", "replace") if has else ""
        return cls(
            capture.kernel,
            parse_release(capture.kernel),
            proc_rules(capture.kernel),
            config,
            layout,
            config.get("DEVICE_PRIVATE") == "y" if config else _has_device_private(capture),
        )


def _config(capture: Capture) -> dict[str, str]:
    """CONFIG_ options from /proc/config.gz, `n` for those that are not set; empty where it was not captured."""
    for checkpoint in map(capture.checkpoint, capture.checkpoints):
        if not checkpoint.has("proc/config.gz"):
            continue
        try:
            unzip = zlib.decompressobj(wbits=31)
            text = unzip.decompress(bytes(checkpoint.read("proc/config.gz")), _MAX_CONFIG).decode("utf-8", "replace")
        except zlib.error as error:
            text = f"not gzip: {error}"
            raise InputError(text, file=capture.path, field=f"cp{checkpoint.number}/proc/config.gz") from error
        return dict(filter(None, map(_option, text.splitlines())))
    return {}


def _option(line: str) -> tuple[str, str] | None:
    if line.startswith("# CONFIG_") and line.endswith(" is not set"):
        return line[len("# CONFIG_") : -len(" is not set")], "n"
    name, equals, value = line.partition("=")
    return (name[len("CONFIG_") :], value) if equals and name.startswith("CONFIG_") else None


def _has_device_private(capture: Capture) -> bool:
    """Whether the kernel has CONFIG_DEVICE_PRIVATE: the reading in which hwpoison entries name poisoned frames."""
    for checkpoint in map(capture.checkpoint, capture.checkpoints):
        machine, flags = machine_of(checkpoint), checkpoint.pfn_array("flags")
        balance = 0
        for tag in checkpoint.roots:
            tables, without = _tables(machine, tag, True), _tables(machine, tag, False).linux
            tables.max_tables = len(checkpoint.words("ptpages.idx"))
            for entry in tables.raw(0, tables.tree.va_end):
                if not entry.raw & 1:  # the valid bit of both architectures
                    level = entry.level.number
                    balance += _plausible(tables.linux.decode(level, entry.raw), flags)
                    balance -= _plausible(without.decode(level, entry.raw), flags)
        if balance:
            return balance > 0
    return True


def _plausible(entry: LinuxEntry, flags: PfnArray | None) -> int:
    """1 where an entry in the swap format names a frame of its kind, -1 where it names another, 0 for other entries."""
    if entry.kind not in PFN_KINDS or flags is None:
        return 0
    word = flags.get(entry.pfn or 0)
    return 1 if word is not None and bool(word & _HWPOISON) == (entry.kind is EntryKind.HWPOISON) else -1


def _tables(machine: Machine, tag: str, device_private: bool) -> ProcessTables:
    regime = machine.regime(tag)
    linux = linux_for(machine.arch, machine.kernel, regime, device_private=device_private)
    return ProcessTables(machine.memory, regime, linux)


class Adopted:
    """A checkpoint whose every page-table entry went through rmap, under several models side by side."""

    def __init__(self, checkpoint: Checkpoint, kernel: Kernel, models: tuple[str, ...] = MODELS) -> None:
        self.checkpoint, self.kernel = checkpoint, kernel
        page_size = checkpoint.capture.page_size
        self.acct = Accounting(models, rules=Rules(ORDERS_BY_PAGE_SIZE[page_size], page_size=page_size))
        self.kpagecount = self._pfn_array("count")
        self.kpageflags = self._pfn_array("flags")
        self.structs = self._structs()
        self.zones = parse_zoneinfo(self._text("proc/zoneinfo"))
        self.young_bit = self._young_bit()
        self.frames = KernelFrames(self.acct, KernelFacts(self.kpageflags.get, self._refcount, self._young, self._node))
        self.smaps = {tag: parse_smaps(self._text(f"proc/{tag}/smaps"), self._file(tag, "smaps")) for tag in self.tags}
        self.processes = self._processes()
        for process in self.processes:
            adopt(process, self.frames)

    @property
    def number(self) -> int:
        """The checkpoint's number."""
        return self.checkpoint.number

    @property
    def tags(self) -> list[str]:
        """The processes in the order in which they were made (ascending PID)."""
        roots = self.checkpoint.roots
        return sorted(roots, key=lambda tag: roots[tag].pid)

    def model(self, name: str) -> Model:
        """One of the models."""
        return self.acct.models[name]

    def _file(self, tag: str, name: str) -> str:
        return self.checkpoint.where(f"proc/{tag}/{name}")

    def _text(self, name: str) -> str:
        return self.checkpoint.text(name) if self.checkpoint.has(name) else ""

    def _pfn_array(self, kind: str) -> PfnArray:
        found = self.checkpoint.pfn_array(kind)
        if found is None:
            raise InputError(f"kpage{kind} was not captured", file=self.checkpoint.capture.path, value=self.number)
        return found

    def _structs(self) -> StructPages:
        has = self.checkpoint.has("structpage.pfn") and self.checkpoint.has("structpage.bin")
        pages = self.checkpoint.structpages() if has else {}
        return StructPages(pages, parse_layout(self.kernel.struct_layout))

    def _young_bit(self) -> int | None:
        """The bit of PG_young in page flags, below PG_idle; None where no page is idle or the bit is unclear."""
        words = {pfn: self.kpageflags.get(pfn) or 0 for pfn in self.structs.pages}
        idle = self.structs.idle_bit({pfn: bool(w & _IDLE) for pfn, w in words.items() if not w & _NOT_A_FOLIO})
        return None if idle is None else idle - 1

    def _refcount(self, pfn: int) -> int:
        return self.structs.field(pfn, "_refcount") or 0

    def _young(self, pfn: int) -> bool:
        return self.young_bit is not None and bool((self.structs.flags(pfn) or 0) >> self.young_bit & 1)

    def _node(self, pfn: int) -> int:
        return self.zones.node(pfn) or 0

    def _processes(self) -> list[AdoptedProcess]:
        machine = machine_of(self.checkpoint)
        tables = {tag: _tables(machine, tag, self.kernel.device_private) for tag in self.tags}
        for reader in tables.values():  # no process has more tables than were captured
            reader.max_tables = len(self.checkpoint.words("ptpages.idx"))
        shared = shared_pmd_tables(tables.values())
        found = []
        for tag, reader in tables.items():
            reader.zero_pfn, reader.shared_pmd_tables = self.frames.is_zero, shared
            areas = self._areas(tag, reader.tree.va_end)
            found.append(AdoptedProcess(tag, areas, reader, self.acct.mm_ids.alloc()))
        return found

    def _areas(self, tag: str, va_end: int) -> list[Vma]:
        """The VMAs of the user half (x86's vsyscall page lies in the other); InputError unless they ascend."""
        policies = {line.start: line.policy for line in self.numa_maps[tag]}
        areas = [_vma(vma, policies) for vma in self.smaps[tag] if vma.start < va_end]
        for low, high in pairwise([*areas, Vma(va_end, va_end, ())]):
            if low.end > high.start:
                raise InputError("an area reaches into the next", file=self._file(tag, "smaps"), value=low.start)
        return areas

    @cached_property
    def numa_maps(self) -> dict[str, list[NumaLine]]:
        """numa_maps by process, empty where the kernel has none."""
        name = "numa_maps"
        return {tag: parse_numa_maps(self._text(f"proc/{tag}/{name}"), self._file(tag, name)) for tag in self.tags}

    @cached_property
    def rollups(self) -> dict[str, list[SmapsVma]]:
        """smaps_rollup by process."""
        name = "smaps_rollup"
        return {tag: parse_smaps(self._text(f"proc/{tag}/{name}"), self._file(tag, name)) for tag in self.tags}

    @cached_property
    def meminfo(self) -> dict[str, int]:
        """meminfo in kB."""
        return parse_meminfo(self._text("proc/meminfo"))


def _vma(vma: SmapsVma, policies: Mapping[int, str]) -> Vma:
    """What the views need of a VMA, from its smaps record."""
    return Vma(
        vma.start,
        vma.end,
        vma.vm_flags,
        vma.name,
        vma.offset,
        vma.device,
        vma.inode,
        vma.fields.get("KernelPageSize", 4) << 10,
        vma.fields.get("MMUPageSize", 4) << 10,
        policies.get(vma.start, "default"),
        vma.fields.get("ProtectionKey"),
        thp_eligible=bool(vma.fields.get("THPeligible")),
    )
