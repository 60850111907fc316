"""What a step wrote: every entry that changed, batch by batch, as the table editor told its observers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..arch.linux import LinuxEntry
from ..mmu.editor import EntryChange
from ..rmap.space.process import Process
from ..rmap.space.system import System


@dataclass
class Written:
    """Neighbouring entries of one table that changed alike: the first one's address, how many, old and new.

    `batches` are the first and the last batch (one page-table lock each) of the step that wrote them. `raw` are the
    first entry's values, hexadecimal; `old` and `new` say what Linux reads, with the first one's frame. `broke` is
    why the entries were invalid in between, or empty.
    """

    process: str
    batches: tuple[int, int]
    va: int
    level: str
    entries: int
    reason: str
    old: str
    new: str
    raw: tuple[str, str]
    broke: str


@dataclass(frozen=True)
class _Change:
    process: Process
    batch: int
    change: EntryChange
    old: LinuxEntry
    new: LinuxEntry

    def follows(self, last: _Change) -> bool:
        """Whether it goes on where the last one ended: the next entry, and alike but for the next frame."""
        a, b = last.change, self.change
        near = self.process is last.process and b.va == a.va + (1 << a.level.shift)
        same = (a.level, a.reason, a.broke) == (b.level, b.reason, b.broke)
        return near and same and _alike(last.old, self.old) and _alike(last.new, self.new)


def _alike(a: LinuxEntry, b: LinuxEntry) -> bool:
    return (a.kind, a.flags, a.pfn is None) == (b.kind, b.flags, b.pfn is None)


class Trace:
    """Listens to every process of a system; `take` hands out what was written since the last time."""

    def __init__(self, system: System) -> None:
        self._batches: list[tuple[Process, Sequence[EntryChange]]] = []
        system.listeners.append(lambda process, batch: self._batches.append((process, batch)))

    def take(self) -> list[Written]:
        """The changes in the order of the batches; inside a batch additions first, as observers hear them."""
        runs: list[list[_Change]] = []
        for change in self._changes():
            if runs and change.follows(runs[-1][-1]):
                runs[-1].append(change)
            else:
                runs.append([change])
        self._batches = []
        return [_written(run) for run in runs]

    def _changes(self) -> Iterator[_Change]:
        for nth, (process, batch) in enumerate(self._batches, 1):
            for change in batch:
                level = change.level.number
                old, new = process.linux.decode(level, change.old), process.linux.decode(level, change.new)
                yield _Change(process, nth, change, old, new)


def _written(run: list[_Change]) -> Written:
    first, change = run[0], run[0].change
    level = first.process.linux.level_names(change.level.number)[0]
    where = first.process.name, (first.batch, run[-1].batch), change.va, level, len(run), change.reason.value
    return Written(*where, first.old.text(), first.new.text(), (f"{change.old:#x}", f"{change.new:#x}"), change.broke)


def lines(trace: Sequence[Written]) -> list[str]:
    """The changes for people, under the batch that wrote them."""
    shown, before = [], None
    for one in trace:
        head = one.process, one.batches
        if head != before:
            first, last = one.batches
            which = f"batch {first}" if first == last else f"batches {first} to {last}"
            shown.append(f"  {one.process}, {which}: {one.reason}")
            before = head
        level = f"{one.level} x{one.entries}" if one.entries > 1 else one.level
        broke = "  (through invalid)" if one.broke else ""
        shown.append(f"      {one.va:#018x} {level:<9} {one.old} -> {one.new}{broke}")
    return shown
