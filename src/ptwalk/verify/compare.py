"""One process at one checkpoint: its page tables against its pagemap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache

from ..arch.linux import EntryKind, Linux, LinuxFlags, linux_for
from ..arch.linux_proc import KPF
from ..loaders.capture import Checkpoint, Pagemap, PagemapRange, PfnArray
from ..loaders.capture_machine import pti_halves
from ..mmu.machine import Machine
from ..rmap_verify.procfs import parse_smaps
from .report import Disagreement, VerifyReport
from .rules import Case, decide
from .tables import COMPARED, PFRAME, PRESENT, SOFT_DIRTY, Item, UserTables, pagemap_word, read_user_tables
from .walker import check_item, samples

_FRAME = PFRAME | PRESENT
_ZERO_PAGE, _HWPOISON = KPF.mask("ZERO_PAGE"), KPF.mask("HWPOISON")


class ProcessCheck:
    """Compares one process; `following` is the next checkpoint that has the same process, as later evidence."""

    def __init__(self, checkpoint: Checkpoint, machine: Machine, tag: str, following: Checkpoint | None) -> None:
        self.checkpoint, self.machine, self.tag, self.following = checkpoint, machine, tag, following
        self.shift = checkpoint.capture.page_shift
        self.regime = machine.regime(tag)
        self.flags_of_frames = checkpoint.pfn_array("flags")
        self.linux, self.tables = self._read_tables()
        self.areas = self._areas()
        self.moving = self._was_running()

    def _read_tables(self) -> tuple[Linux, UserTables]:
        """The tables, read as by the kernel configuration that kpageflags speak for.

        CONFIG_DEVICE_PRIVATE moves the numbers of migration and hwpoison entries; kpageflags know poisoned frames.
        """
        best: tuple[int, Linux, UserTables] | None = None
        for device_private in (True, False):
            linux = linux_for(self.machine.arch, self.machine.kernel, self.regime, device_private=device_private)
            tables = read_user_tables(self.machine.memory, self.regime, linux)
            wrong = sum(self._contradicts_flags(item, self.flags_of_frames) for item in tables.items)
            if best is None or wrong < best[0]:
                best = wrong, linux, tables
            if not wrong:
                break
        assert best is not None
        return best[1], best[2]

    @staticmethod
    def _contradicts_flags(item: Item, frames: PfnArray | None) -> bool:
        if item.traits.present or item.pfn is None or frames is None:
            return False
        flags = frames.get(item.pfn)
        return flags is not None and bool(flags & _HWPOISON) != (item.traits.kind is EntryKind.HWPOISON)

    def _areas(self) -> list[tuple[int, int, frozenset[str]]]:
        name = f"proc/{self.tag}/smaps"
        if not self.checkpoint.has(name):
            return []
        areas = parse_smaps(self.checkpoint.text(name), self.checkpoint.where(name))
        return sorted((area.start, area.end, frozenset(area.vm_flags)) for area in areas)

    def _was_running(self) -> bool:
        """Whether the process was running while /proc was read; one that spins in user mode touches nothing new."""
        name = f"proc/{self.tag}/stat"
        if not self.checkpoint.has(name) or self.checkpoint.roots[self.tag].seen_in_user_mode:
            return False
        return self.checkpoint.text(name).rpartition(")")[2].split()[:1] == ["R"]

    def area_flags(self, start: int, end: int) -> frozenset[str] | None:
        """The VmFlags of the area that holds `start` to `end`; None where smaps has none."""
        i = bisect_right(self.areas, start, key=lambda area: area[0]) - 1
        return self.areas[i][2] if i >= 0 and end <= self.areas[i][1] else None

    def run(self, report: VerifyReport) -> None:
        """Compare everything and enter it into `report`."""
        report.disagreements += [self.disagree(va, text, "a captured table") for va, text in self.tables.broken]
        self._compare_words(report)
        self._compare_halves(report)
        for item in samples(self.tables.items, self.shift):
            text = check_item(self.machine.memory, self.regime, item, self.shift)
            if text:
                report.disagreements.append(self.disagree(item.va, self.text(item), f"reference walker: {text}"))
            else:
                report.walker["walks that agree"] += 1

    def text(self, item: Item | None) -> str:
        """The entry in Linux's words."""
        return "nothing" if item is None else self.linux.decode(item.level.number, item.raw).text()

    def disagree(self, va: int, tables: str, kernel: str) -> Disagreement:
        return Disagreement(self.checkpoint.number, self.tag, va, tables, kernel)

    def _compare_words(self, report: VerifyReport) -> None:
        pagemap = self.checkpoint.pagemap(self.tag)
        expected: dict[int, tuple[int, Item]] = {}
        missing = sum(end - start for start, end in pagemap.missing) >> self.shift
        if missing:
            where = f"checkpoint {self.checkpoint.number}, {self.tag}"
            report.notes.append(f"{where}: pagemap was captured only in part, {missing} pages are not compared")
        for item in self.tables.items:
            before = len(expected)
            expected.update(self._words(item, pagemap))
            outside = (
                sum(pagemap.is_missing(item.va + (n << self.shift)) for n in range(item.nr_pages)) if missing else 0
            )
            if len(expected) - before + outside < item.nr_pages:
                report.disagreements.append(self.disagree(item.va, self.text(item), "no area maps all of this"))
        for area in pagemap.ranges:
            self._compare_area(area, pagemap, expected, report)

    def _words(self, item: Item, pagemap: Pagemap) -> Iterator[tuple[int, tuple[int, Item]]]:
        """The words of the item's pages that lie in an area: however large a leaf is, no more than pagemap has."""
        word, step = pagemap_word(item, self.linux)
        first = item.va >> self.shift
        i = max(0, bisect_right(pagemap.ranges, item.va, key=lambda area: area.start) - 1)
        while i < len(pagemap.ranges) and pagemap.ranges[i].start >> self.shift < first + item.nr_pages:
            area = pagemap.ranges[i]
            low = max(first, area.start >> self.shift)
            high = min(first + item.nr_pages, area.end >> self.shift)
            yield from ((page, (word + (page - first) * step, item)) for page in range(low, high))
            i += 1

    def _compare_area(
        self, area: PagemapRange, pagemap: Pagemap, expected: dict[int, tuple[int, Item]], report: VerifyReport
    ) -> None:
        flags = self.area_flags(area.start, area.end)
        words = pagemap.entries[area.first : area.first + area.count].tolist()
        for page, said in enumerate(words, area.start >> self.shift):
            tables, item = expected.pop(page, (0, None))
            word = said & COMPARED
            report.present += bool(word & PRESENT) and word & _FRAME == tables & _FRAME
            alike = not (word ^ tables) & ~SOFT_DIRTY
            name = "told by the entry" if word == tables else self._decide(page, word, tables, item, flags)
            if alike and name is not None:
                report.agreements[self.kind(item)] += 1
                if (word | tables) & SOFT_DIRTY:
                    report.soft_dirty[name] += 1
                continue
            if name is not None:
                report.by_rule[name] += 1
                continue
            text = self.text(item)
            report.disagreements.append(
                self.disagree(page << self.shift, f"{text} (pagemap word {tables:#x})", f"pagemap word {said:#x}")
            )

    def kind(self, item: Item | None) -> str:
        """Under which name an agreement is counted."""
        if item is None:
            return "none"
        entry = item.traits
        if entry.present:
            leaf = "" if item.nr_pages == 1 else f", {item.level.linux_name} leaf"
            return f"present{self._present_kind(item)}{leaf}"
        names = "".join(f" {marker.name}" for marker in entry.marker)
        flags = " soft-dirty" if LinuxFlags.SOFT_DIRTY in entry.flags else ""
        return f"{entry.kind.value}{names.lower()}{flags}"

    def _present_kind(self, item: Item) -> str:
        if item.traits.kind is not EntryKind.PRESENT:
            return f", {item.traits.kind.value}"
        flags = self.flags_of_frames.get(item.pfn or 0) if self.flags_of_frames is not None else None
        return ", zero page" if flags is not None and flags & _ZERO_PAGE else ""

    def _decide(self, page: int, word: int, tables: int, item: Item | None, flags: frozenset[str] | None) -> str | None:
        """The name of the rule that explains a difference, or None."""
        va, frames = page << self.shift, self.flags_of_frames

        def kpageflags() -> int | None:
            return frames.get(tables & PFRAME) if tables & PRESENT and frames is not None else None

        if flags is None:  # the areas of smaps were cut otherwise
            flags = self.area_flags(va, va + (1 << self.shift))
        return decide(Case(word, tables, item, flags, self.moving, lambda: self._later(va), kpageflags))

    def _later(self, va: int) -> int | None:
        """The process's pagemap word for `va` at the next checkpoint."""
        if self.following is None:
            return None
        pagemap = _pagemap(self.following, self.tag)
        i = bisect_right(pagemap.ranges, va, key=lambda area: area.start) - 1
        if i < 0 or va >= pagemap.ranges[i].end:
            return None
        area = pagemap.ranges[i]
        return int(pagemap.entries[area.first + (va - area.start >> self.shift)])

    def _compare_halves(self, report: VerifyReport) -> None:
        """With page-table isolation both roots must map the same user pages."""
        if pti_halves(self.checkpoint.roots[self.tag]) is None or f"{self.tag}:user" not in self.machine.spaces:
            return
        regime = self.machine.regime(f"{self.tag}:user")
        other = read_user_tables(self.machine.memory, regime, self.linux)
        mine = {(item.va, item.raw): item for item in self.tables.items}
        theirs = {(item.va, item.raw): item for item in other.items}
        report.walker["entries alike in both halves (page-table isolation)"] += len(mine.keys() & theirs.keys())
        for va, raw in sorted(mine.keys() ^ theirs.keys()):
            half = "kernel" if (va, raw) in mine else "user"
            report.disagreements.append(self.disagree(va, f"entry {raw:#018x}", f"only in the {half} half"))


@lru_cache(maxsize=8)
def _pagemap(checkpoint: Checkpoint, tag: str) -> Pagemap:
    return checkpoint.pagemap(tag)
