"""Layout descriptions in TOML: a machine that a person wrote down; examples/layouts has annotated ones.

The page tables are built through the table editor, so that what is described is what a walk finds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.arm64.features import FEATURES
from ..mmu.editor import TableEditor
from ..mmu.frames import FrameAllocator
from ..mmu.hardware_entries import PageAttributes
from ..mmu.machine import ROOT_REGISTER, Folio, Machine, Space
from ..mmu.memory import PhysicalMemory
from ..mmu.ranges import map_range
from ..mmu.regime import Regime, Tree
from . import layout_schema as schema
from .layout_schema import parse_address, parse_size
from .options import Options
from .overrides import apply_overrides, check_registers
from .presets import Preset, choose_preset
from .ttbr import encode_ttbr

MAX_ENTRIES = 1 << 18
_TABLES_AT_MOST = 1 << 24
_TABLES_SHARE = 4
_GRANULES = {0: 12, 1: 16, 2: 14}  # TCR_EL1.TG0


def load_layout(path: Path, options: Options) -> Machine:
    """The machine that the file describes; InputError names the field, `spaces[0].mappings[2].va`."""
    described = schema.read_layout(path)
    builder = _Builder(path, described)
    machine = builder.build()
    apply_overrides(machine, options)
    return machine


@dataclass(slots=True)
class _Range:
    """One mapping, parsed: `field` is its path in the file."""

    field: str
    va: int
    pa: int
    size: int
    page_size: int | None
    source: schema.Mapping

    @property
    def end(self) -> int:
        return self.va + self.size


class _Builder:
    def __init__(self, path: Path, described: schema.Layout) -> None:
        self.path, self.described = path, described
        self.preset = self._preset()
        self.memory = self._memory()
        self.machine = self._machine()
        self.page_shift = self._page_shift()
        self.frames = self._frames()
        self.entries_left = MAX_ENTRIES

    def error(self, problem: str, field: str, value: object = None) -> InputError:
        return InputError(problem, file=self.path, field=field, value=value)

    def address(self, value: int | str, field: str) -> int:
        return parse_address(value, self.path, field)

    def size(self, value: int | str, field: str) -> int:
        return parse_size(value, self.path, field)

    # ---- the machine without its tables

    def _preset(self) -> Preset:
        return choose_preset(self.described.arch, self.described.preset, self.path)

    def _memory(self) -> PhysicalMemory:
        memory = PhysicalMemory()
        for i, bank in enumerate(self.described.memory):
            field = f"memory[{i}]"
            start = self.address(bank.start, f"{field}.start")
            if (bank.size is None) == (bank.end is None):
                raise self.error("give either size or end", field)
            if bank.size is not None:
                size = self.size(bank.size, f"{field}.size")
            else:
                size = self.address(bank.end or 0, f"{field}.end") - start
            if size <= 0 or (start | size) % 4096:
                raise self.error("a bank holds whole pages of 4096 bytes", field, size)
            try:
                memory.add_ram(start, size, bank.name)
            except InputError as error:
                raise self.error(error.problem, f"{field}.{error.field}") from error
        return memory

    def _machine(self) -> Machine:
        registers = {name: self.address(x, f"registers.{name}") for name, x in self.described.registers.items()}
        check_registers(self.preset.arch, registers, file=self.path)
        if self.preset.arch == "arm64":
            self._check_features(FEATURES)
        machine = Machine(
            arch=self.preset.arch,
            memory=self.memory,
            registers={**self.preset.registers, **registers},
            features={**self.preset.features, **self.described.features},
            kernel=self.described.kernel,
            source=str(self.path),
            format="layout description",
            notes=[f"registers not given are those of the preset {self.preset.name}"],
        )
        if self.described.name:
            machine.notes.insert(0, self.described.name)
        return machine

    def _check_features(self, known: Sequence[str]) -> None:
        for name in self.described.features:
            if name != "pamax" and name not in known:
                raise self.error("no feature that a walk depends on", f"features.{name}")

    def _page_shift(self) -> int:
        if self.preset.arch == "x86_64":
            return 12
        from ..arch.arm64.registers import TCR_EL1

        encoded = TCR_EL1["TG0"].get(self.machine.registers["TCR_EL1"])
        if encoded not in _GRANULES:
            raise self.error("TG0 holds a reserved granule size", "registers.TCR_EL1", encoded)
        return _GRANULES[encoded]

    def _frames(self) -> FrameAllocator:
        """Where tables go: `tables`, or the top of the last bank."""
        page, tables = 1 << self.page_shift, self.described.tables
        if tables is None:
            start, end = self.memory.extents[-1]
            size = min(_TABLES_AT_MOST, (end - start) // _TABLES_SHARE) or end - start
            start, end = -(-(end - size) // page) * page, end // page * page
            self.machine.notes.append(f"page tables are at {start:#x}-{end:#x}, the top of the last bank")
        else:
            start, size = self.address(tables.start, "tables.start"), self.size(tables.size, "tables.size")
            end = start + size
            if start % page or size % page:
                raise self.error(f"page tables need whole pages of {page:#x} bytes", "tables", start)
        if start >= end or not any(low <= start and end <= high for low, high in self.memory.extents):
            raise self.error("no RAM holds the page tables", "tables", start)
        return FrameAllocator(start, end, page)

    # ---- spaces

    def build(self) -> Machine:
        names: set[str] = set()
        for i, space in enumerate(self.described.spaces):
            if space.name in names:
                raise self.error("two spaces share this name", f"spaces[{i}].name", space.name)
            names.add(space.name)
            self._space(space, f"spaces[{i}]")
        self.machine.folios = self._folios()
        if not self.described.spaces and ROOT_REGISTER[self.machine.arch] not in self.machine.registers:
            self.machine.notes.append("no space is described and no register names a root")
        return self.machine

    def _space(self, space: schema.Space, field: str) -> None:
        root = self._root(space, field)
        if self.machine.arch == "x86_64":
            registers = {"CR3": root}
        else:
            tcr = self.machine.registers["TCR_EL1"]
            registers = {
                "TTBR0_EL1": encode_ttbr(tcr, root, f"{field}.root", str(self.path)),
                "TTBR1_EL1": encode_ttbr(tcr, self._frame(field), f"{field}.root", str(self.path)),
            }
        self.machine.spaces[space.name] = Space(space.name, registers, space.pid)
        try:
            regime = self.machine.regime(space.name)
        except InputError as error:
            raise self.error(f"the registers do not translate: {error}", field) from error
        editor = TableEditor(self.memory, regime, self.frames, space=space.name)
        for mapping in self._mappings(space, regime, field):
            self._map(editor, mapping)

    def _frame(self, field: str) -> int:
        try:
            return self.frames.alloc()
        except InputError as error:
            raise self.error(error.problem, field) from error

    def _root(self, space: schema.Space, field: str) -> int:
        if space.root is None:
            return self._frame(field)
        root = self.address(space.root, f"{field}.root")
        if root % (1 << self.page_shift) or not self.memory.backs(root, 1 << self.page_shift):
            raise self.error("not a whole page of RAM", f"{field}.root", root)
        if self.frames.start <= root < self.frames.end:
            raise self.error("lies where page tables are allocated", f"{field}.root", root)
        return root

    def _mappings(self, space: schema.Space, regime: Regime, field: str) -> list[_Range]:
        ranges = [self._range(m, regime, f"{field}.mappings[{i}]") for i, m in enumerate(space.mappings)]
        ordered = sorted(ranges, key=lambda r: r.va)
        for low, high in itertools.pairwise(ordered):
            if high.va < low.end:
                later, earlier = (high, low) if ranges.index(high) > ranges.index(low) else (low, high)
                raise self.error(f"overlaps {earlier.field}", f"{later.field}.va", later.va)
        return ranges

    def _range(self, mapping: schema.Mapping, regime: Regime, field: str) -> _Range:
        va, pa = self.address(mapping.va, f"{field}.va"), self.address(mapping.pa, f"{field}.pa")
        size = self.size(mapping.size, f"{field}.size")
        tree = next((tree for tree in regime.trees if va in tree), None)
        if tree is None:
            raise self.error("this paging mode does not translate the address", f"{field}.va", va)
        if va + size > tree.va_end:
            raise self.error("runs beyond the addresses that are translated", f"{field}.size", size)
        page_size = None if mapping.page_size == "largest" else self.size(mapping.page_size, f"{field}.page_size")
        self._check_alignment(tree, va, pa, size, page_size, field)
        return _Range(field, va, pa, size, page_size, mapping)

    def _check_alignment(self, tree: Tree, va: int, pa: int, size: int, page_size: int | None, field: str) -> None:
        sizes = [1 << level.shift for level in tree.levels if level.leaf]
        if page_size is not None and page_size not in sizes:
            known = ", ".join(f"{x:#x}" for x in sorted(sizes))
            raise self.error(f"no page size of this paging mode ({known})", f"{field}.page_size", page_size)
        unit = page_size or min(sizes)
        for name, value in (("va", va), ("pa", pa), ("size", size)):
            if value % unit:
                raise self.error(f"not aligned to the page size {unit:#x}", f"{field}.{name}", value)

    def _map(self, editor: TableEditor, r: _Range) -> None:
        self.entries_left -= self._entries(editor, r)
        if self.entries_left < 0:
            raise self.error(f"more than {MAX_ENTRIES} entries in all: use larger pages", f"{r.field}.size", r.size)
        source = r.source
        attributes = PageAttributes(
            write="w" in source.rights,
            execute="x" in source.rights,
            user=source.mode == "user",
            global_=source.global_,
            memory_type=source.memory_type,
        )
        try:
            map_range(editor, r.va, r.pa, r.size, attributes, page_size=r.page_size, contiguous=source.contiguous)
        except InputError as error:
            raise self.error(error.problem, f"{r.field}.{error.field or 'va'}", error.value) from error

    def _entries(self, editor: TableEditor, r: _Range) -> int:
        """At most how many leaves the range takes: whole large pages, and smaller ones up to them at both ends."""
        if r.page_size is not None:
            return r.size // r.page_size
        sizes = [1 << level.shift for level in editor.levels(r.va) if level.leaf]
        fit = [size for size in sizes if (r.va - r.pa) % size == 0 and size <= r.size]
        ends = sum(2 * large // small for large, small in itertools.pairwise(fit))
        return min(r.size // sizes[-1], r.size // fit[0] + ends)

    # ---- folios

    def _folios(self) -> list[Folio]:
        folios = [folio for i, described in enumerate(self.described.folios) for folio in self._folio(described, i)]
        ordered = sorted(folios, key=lambda folio: folio[1].pfn)
        for (_, low), (field, high) in itertools.pairwise(ordered):
            if high.pfn < low.pfn + (1 << low.order):
                raise self.error("overlaps another folio", field, high.pfn)
        return [folio for _, folio in ordered]

    def _folio(self, described: schema.Folio, i: int) -> Iterator[tuple[str, Folio]]:
        field, pages = f"folios[{i}].pfn", 1 << described.order
        pfn = self.address(described.pfn, field)
        if pfn % pages:
            raise self.error(f"not aligned to the order's {pages:#x} pages", field, pfn)
        start, end = pfn << self.page_shift, (pfn + described.count * pages) << self.page_shift
        if not any(low <= start and end <= high for low, high in self.memory.extents):
            raise self.error("no RAM holds this folio", field, pfn)
        for n in range(described.count):
            yield field, Folio(pfn + n * pages, described.order, described.kind, described.name)
