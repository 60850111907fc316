"""Linux's rmap counters of the folios of a machine, in the three accounting models, kept true through edits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from ..arch.errors import InputError
from ..arch.linux import linux_for
from ..arch.linux_proc import KPF
from ..loaders.capture import Capture
from ..mmu.editor import EntryChange
from ..mmu.machine import Folio as DescribedFolio
from ..mmu.machine import Machine
from ..mmu.regime import EntryType
from ..rmap.adopt import AdoptedProcess, EntryObserver, KernelFacts, KernelFrames, adopt
from ..rmap.calls import Accounting
from ..rmap.figures import kpagecount, pagemap_exclusive
from ..rmap.folio import Folio
from ..rmap.levels import ORDERS_BY_PAGE_SIZE, Rules
from ..rmap.models import MODELS, Model
from ..rmap.models.precise import ENTIRELY_MAPPED
from ..rmap.observer import mapped_folio
from ..rmap.stats import Nr
from ..rmap.views.tables import ProcessTables
from ..rmap_verify.adopted import Adopted, Kernel
from .shown import Line, Part, Shown

Column = Mapping[str, int | str]
"""One model's figures by name."""
_KIND_FLAGS = {
    "anon": ("ANON", "SWAPBACKED"),
    "file": ("LRU",),
    "shmem": ("SWAPBACKED",),
    "ksm": ("ANON", "KSM"),
    "hugetlb_anon": ("ANON", "HUGE"),
    "hugetlb_file": ("HUGE",),
}
_PTI_HALF = ":user"  # loaders.capture_machine's name for the other half of a process


@dataclass(frozen=True, repr=False)
class Counters(Shown):
    """The counters of one folio in each model, `before` those of an earlier moment; `*` marks where models differ."""

    title: str
    models: Mapping[str, Column]
    before: Mapping[str, Column] | None = None

    @property
    def moved(self) -> bool:
        """Whether any counter differs from `before`."""
        return self.before is not None and self.before != self.models

    def lines(self) -> Iterator[Line]:
        yield [(self.title, "bold")]
        yield ["  " + " " * 22 + "".join(f"{name:>22}" for name in self.models)]
        for name in dict.fromkeys(name for column in self.models.values() for name in column):
            if line := self._row(name):
                yield line

    def _row(self, name: str) -> Line | None:
        now = [column.get(name) for column in self.models.values()]
        was = [self.before.get(model, {}).get(name) for model in self.models] if self.before is not None else now
        if self.before is not None and was == now:
            return None
        differ = len({value for value in now if value is not None}) > 1
        line: list[Part] = [f"{'*' if differ else ' '} {name:<22}"]
        for old, new in zip(was, now, strict=True):
            text = _figure(new) if old == new else f"{_figure(old)} -> {_figure(new)}"
            line.append((f"{text:>22}", "" if old == new else "yellow"))
        return line


@dataclass
class Accounts:
    """The accounting of every process of a machine; `observe` keeps it true when entries are edited."""

    frames: KernelFrames
    processes: Mapping[str, AdoptedProcess]
    page_size: int
    _told: dict[str, EntryObserver] = field(default_factory=dict)

    @classmethod
    def of(cls, machine: Machine, checkpoint: int | None = None) -> Accounts:
        """Adopt every page-table entry of the machine, as it was loaded; InputError where its source has no folios.

        A capture is read again with its kpageflags; a layout description has its own list of folios.
        """
        if machine.format == "capture":
            capture = Capture(Path(machine.source))
            adopted = Adopted(capture.checkpoint(checkpoint), Kernel.of(capture), tuple(MODELS))
            return cls(adopted.frames, {p.name: p for p in adopted.processes}, capture.page_size)
        if not machine.folios or not machine.spaces:
            text = "no rmap counters: they need a capture with kpageflags or a layout description with [[folios]]"
            raise InputError(text, file=machine.source)
        return cls._described(machine)

    @classmethod
    def _described(cls, machine: Machine) -> Accounts:
        tables = {name: _tables(machine, name) for name in machine.spaces}
        page_size = next(iter(tables.values())).page_size
        acct = Accounting(tuple(MODELS), rules=Rules(ORDERS_BY_PAGE_SIZE[page_size], page_size=page_size))
        frames = KernelFrames(acct, KernelFacts(_kpageflags(machine.folios)))
        processes = {name: AdoptedProcess(name, (), table, acct.mm_ids.alloc()) for name, table in tables.items()}
        for process in processes.values():
            adopt(process, frames)
        return cls(frames, processes, page_size)

    def _observer(self, space: str) -> EntryObserver | None:
        name = space.removesuffix(_PTI_HALF)
        if name not in self._told and name in self.processes:
            self._told[name] = EntryObserver(self.processes[name], self.frames)
        return self._told.get(name)

    def observe(self, space: str, batch: Sequence[EntryChange]) -> list[Line]:
        """Count what a batch of edits in `space` adds and removes, and say which counters moved."""
        observer = self._observer(space)
        if observer is None:
            return [[f"rmap  not counted: no process {space!r} was adopted"]]
        in_user_half = [change for change in batch if change.va in observer.tables.tree]
        folios = [folio for change in in_user_half for folio in self._touched(observer, change)]
        before = {folio: self._columns(folio) for folio in folios}
        system, refused = self._system(), len(observer.process.refused)
        if in_user_half:
            observer(in_user_half)
        moved = [Counters(f"rmap  {_title(f)}", self._columns(f), columns) for f, columns in before.items()]
        moved.append(Counters("rmap  system, pages", self._system(), system))
        lines = [line for counters in moved if counters.moved for line in counters.lines()]
        lines += [[(f"rmap  refused: {text}", "bold red")] for text in observer.process.refused[refused:]]
        if any(_relinked(observer, change) for change in batch):
            lines.append(
                [("rmap  a table was linked or unlinked: the entries in it were not written, so not counted", "")]
            )
        return lines or [[("rmap  no counter moves", "dim")]]

    def _touched(self, observer: EntryObserver, change: EntryChange) -> Iterator[Folio]:
        for raw in (change.old, change.new):
            entry = observer.entry(change, raw)
            folio = mapped_folio(entry, self.frames) if entry is not None else None
            if folio is not None:
                yield folio

    def counters(self, pa: int) -> Counters:
        """The counters of the folio that holds `pa`; InputError where the source describes none there."""
        pfn = pa // self.page_size
        folio = self.frames.folio(pfn)
        if folio is None:
            raise InputError("the source describes no folio here", field="pa", value=pa)
        page = pfn - folio.pfn
        return Counters(f"{_title(folio)}; page {page}", self._columns(folio, page))

    def _columns(self, folio: Folio, page: int | None = None) -> dict[str, Column]:
        return {name: _figures(model, folio, page) for name, model in self.frames.acct.models.items()}

    def _system(self) -> dict[str, Column]:
        models = self.frames.acct.models.items()
        return {name: {f"NR_{item.name}": model.stats.nr[item] for item in Nr} for name, model in models}


def _relinked(observer: EntryObserver, change: EntryChange) -> bool:
    """Whether an entry points at another table than before, or at one for the first or last time."""
    regime = observer.tables.regime
    old, new = (regime.classify(change.level, raw) for raw in (change.old, change.new))
    return EntryType.TABLE in (old.type, new.type) and (old.type, old.pa) != (new.type, new.pa)


def _figure(x: int | str | None) -> str:
    """Counts as people count; _nr_pages_mapped of an entirely mapped folio, which starts at 0x800000, by its bits."""
    return "-" if x is None else f"{x:#x}" if isinstance(x, int) and x >= ENTIRELY_MAPPED else str(x)


def _title(folio: Folio) -> str:
    return f"folio pfn {folio.pfn:#x}, {folio.kind.value}, order {folio.order}"


def _figures(model: Model, folio: Folio, page: int | None) -> Column:
    refused = folio.counters[model.name].refused
    if refused:
        return {"refused": refused}
    figures: dict[str, int | str] = {"folio_mapcount": model.mapcount(folio), **model.fields(folio)}
    figures["maybe_mapped_shared"] = int(model.maybe_mapped_shared(folio))
    if page is not None:
        figures["kpagecount"] = kpagecount(model, folio, page)
        figures["pagemap exclusive"] = int(pagemap_exclusive(model, folio, page))
    return figures


def _tables(machine: Machine, space: str) -> ProcessTables:
    regime = machine.regime(space)
    return ProcessTables(machine.memory, regime, linux_for(machine.arch, machine.kernel, regime))


def _kpageflags(folios: Sequence[DescribedFolio]) -> Callable[[int], int | None]:
    """kpageflags of the frames of described folios; None for others."""
    ordered = sorted(folios, key=attrgetter("pfn"))

    def flags(pfn: int) -> int | None:
        at = bisect_right(ordered, pfn, key=attrgetter("pfn")) - 1
        if at < 0 or pfn >= ordered[at].pfn + (1 << ordered[at].order):
            return None
        folio = ordered[at]
        part = () if not folio.order else ("COMPOUND_HEAD",) if pfn == folio.pfn else ("COMPOUND_TAIL",)
        return KPF.mask(*_KIND_FLAGS[folio.kind], *part)

    return flags
