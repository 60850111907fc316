"""Random scenarios against all that must hold after any step: recount, walker, page cache; and that all is freed.

Steps are made as text, so that a failure is a scenario: the message holds the shortest one that was found, ready for
`ptwalk rmap run`. Many steps cannot be; what is refused must have changed nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import MIGRATION_KINDS, LinuxFlags
from ptwalk.mmu.walk import Access, AccessKind, Translation, finish
from ptwalk.rmap.errors import Rejected
from ptwalk.rmap.folio import Folio
from ptwalk.rmap.space.area import Area
from ptwalk.rmap.space.process import Leaf, Process
from ptwalk.rmap.space.recount import recount_problems
from ptwalk.rmap.space.system import ARCHES, ZERO_PFN, Settings, System
from ptwalk.rmap.views.inputs import State
from ptwalk.scenario.script import Line, Words
from ptwalk.scenario.steps import STEPS

NAMES = "ABCD"
SAMPLE = 20
"""Pages of each process that are walked after a step."""
SLOW = ("merge", "device-private", "split-folio", "pageout")
"""Steps that may leave thousands of folios where a PMD has thousands of pages: not done there."""
READ, WRITE = Access(AccessKind.READ, user=True), Access(AccessKind.WRITE, user=True)


# ---- what must hold


def state(system: System) -> object:
    """All that a refused step must leave alone."""
    frames = [pa for pa in range(0, 64 << 20, system.page_size) if pa in system.table_frames]
    tables = [(pa, system.memory.read(pa, system.page_size)) for pa in frames]
    folios = [
        (name, f.kind, f.flags, f.refs, f.pins, f.exclusive.key(), [c.key() for c in f.counters.values()])
        for name, f in system.folios.items()
    ]
    areas = [
        (p.name, a.name, a.start, a.pages.key(), a.anon_vma)
        for p in system.processes.values()
        for a in p.areas.values()
    ]
    files = [(f.name, dict(f.folios), dict(f.swapped)) for f in system.files.values()]
    return tables, folios, areas, files, dict(system.swap.counts), dict(system.swap.slots), dict(system.isolated)


def wrong(system: System, rng: random.Random) -> Iterator[str]:
    """A sentence for everything that does not hold."""
    yield from recount_problems(system)
    mapped: dict[tuple[Folio, int], int] = {}
    for process in system.processes.values():
        for area in process.areas.values():
            leaves = process.leaves(area.start, area.end)
            for leaf in leaves:
                yield from file_problems(process, area, leaf)
                for page in range(leaf.page, leaf.page + leaf.nr_pages) if leaf.folio.is_anon else ():
                    mapped[leaf.folio, page] = mapped.get((leaf.folio, page), 0) + 1
            for other in process.nonpresent(area.start, area.end):
                folio = system.folio(other.entry.pfn or 0)
                if other.entry.kind in MIGRATION_KINDS and (folio is None or not system.isolated[folio]):
                    yield f"{process.name}'s migration entry at {other.va:#x} names no folio that is being migrated"
            yield from walker_problems(process, area, leaves, rng)
    for (folio, page), times in mapped.items():
        if times > 1 and folio.exclusive[page]:
            yield f"page {page} of {folio!r} is marked exclusive and mapped {times} times"


def file_problems(process: Process, area: Area, leaf: Leaf) -> Iterator[str]:
    """An entry of a file's page maps what the page cache holds there; anonymous pages stand in private areas only."""
    where = f"{process.name}'s entry at {leaf.va:#x}"
    if leaf.folio.is_anon:
        if not area.is_cow:
            yield f"{where} maps an anonymous page in a shared mapping"
        return
    page = area.offset + area.page(leaf.va)
    if area.file is None or area.file.at(page) != (page - leaf.page, leaf.folio):
        yield f"{where} maps page {leaf.page} of {leaf.folio!r}, which is not the file's page {page}"


def walker_problems(process: Process, area: Area, leaves: list[Leaf], rng: random.Random) -> Iterator[str]:
    """The architecture's walker and Linux agree on a sample of pages, mapped ones and others."""
    some = rng.sample(leaves, min(SAMPLE // 2, len(leaves)))
    pages = [area.page(leaf.va) + rng.randrange(leaf.nr_pages) for leaf in some]
    pages += [rng.randrange(area.nr_pages) for _ in range(SAMPLE // 2)]
    for page in pages:
        va = area.va(page) + rng.randrange(process.page_size)
        expected = reading(process, area.va(page), va % process.page_size)
        for access, wanted in zip((READ, WRITE), expected, strict=True):
            end = finish(process.tables.regime.walk(process.system.memory, va, access))[1]
            found = end.pa if isinstance(end, Translation) else None
            if found != wanted:
                text = ["a fault" if pa is None else f"{pa:#x}" for pa in (found, wanted)]
                yield f"{process.name}: a {access.kind.value} of {va:#x} ends in {text[0]}, Linux reads {text[1]}"


def reading(process: Process, va: int, offset: int) -> tuple[int | None, int | None]:
    """Where a user's read and write of a page end by Linux's reading; None is a fault.

    arm64 without hardware updates faults on entries that are not accessed, and on writes of clean ones.
    """
    arm64 = process.system.arch == "arm64"
    leaves = process.leaves(va, va + 1)
    if leaves and leaves[0].state is State.PRESENT:
        leaf = leaves[0]
        pa = (leaf.folio.pfn + leaf.page) * process.page_size + va - leaf.va + offset
        slot = process.editor.lookup(va)  # of a contiguous block Linux reads all entries' bits, the walker this one's
        flags = process.linux.decode(slot.level.number, process.editor.read(slot)).flags
        young = LinuxFlags.YOUNG in flags or not arm64
        dirty = LinuxFlags.DIRTY in flags or not arm64
        return pa if young else None, pa if young and dirty and leaf.write else None
    others = process.nonpresent(va, va + 1)
    if others and others[0].entry.present and others[0].entry.kind not in MIGRATION_KINDS:
        return ZERO_PFN * process.page_size + offset, None
    return None, None


# ---- steps


class Author:
    """Writes steps."""

    def __init__(self, system: System, rng: random.Random) -> None:
        self.system, self.rng = system, rng
        self.pmd = system.levels.size(1)

    def process(self) -> str:
        return self.rng.choice([*self.system.processes] or [*NAMES])

    def place(self) -> tuple[str, Area | None]:
        """`A v`, and the area if it exists."""
        process = self.system.processes.get(self.process())
        if process is None or not process.areas:
            return "A v", None
        areas = [*process.areas.values()]
        used = [area for area in areas if process.leaves(area.start, area.end)]
        area = self.rng.choice(used if used and self.rng.random() < 0.6 else areas)
        return f"{process.name} {area.name}", area

    def one(self, *, mapped: float = 0.4, at: tuple[str, Area | None] | None = None) -> str:
        """A page: by some chance a mapped one, else mostly near a boundary."""
        place, area = at or self.place()
        if area is not None and self.rng.random() < mapped:
            process = self.system.processes[place.split()[0]]
            leaves = process.leaves(area.start, area.end)
            leaf = self.rng.choice(leaves) if leaves else None
            if leaf is not None:
                return f"{place} {area.page(leaf.va) + self.rng.choice((0, self.rng.randrange(leaf.nr_pages)))}"
        return f"{place} {self.page(area)}"

    def large(self) -> str:
        """An area, or the pages of one that are mapped by a PMD."""
        places = [
            f"{process.name} {area.name} {area.page(leaf.va)}..{area.page(leaf.va) + leaf.nr_pages - 1}"
            for process in self.system.processes.values()
            for area in process.areas.values()
            for leaf in process.leaves(area.start, area.end)
            if leaf.level
        ]
        return self.rng.choice(places) if places else self.some()

    def page(self, area: Area | None) -> int:
        if area is None:
            return 0
        edges = (0, 1, 7, 15, 16, self.pmd - 1, self.pmd, self.pmd + 3)
        page = self.rng.choice(edges) if self.rng.random() < 0.5 else self.rng.randrange(area.nr_pages)
        return min(page, area.nr_pages - 1)

    def some(self, *, order: int | None = None) -> str:
        """Pages of an area: all, a part, or an aligned block."""
        place, area = self.place()
        if area is None or (order is None and self.rng.random() < 0.1):
            return place
        kind = self.rng.random()
        if order is not None or kind < 0.5:
            size = 1 << (self.rng.choice((0, 2, 3, 4, 5, self.system.levels.pmd)) if order is None else order)
            first = int(self.one(mapped=0.5, at=(place, area)).split()[-1]) // size * size
            return f"{place} {first}..{min(first + size, area.nr_pages) - 1}"
        first, last = sorted((self.page(area), self.page(area)))
        return f"{place} {first}..{last}"

    def folio(self) -> str:
        names = [*self.system.folios]
        moving = [self.system.name_of(folio) for folio, n in self.system.isolated.items() if n]
        large = [name for name, folio in self.system.folios.items() if folio.is_large]
        return self.rng.choice(self.rng.choice([one for one in (names, moving, large) if one] or [["F"]]))

    def step(self) -> str:
        """The text of one step."""
        kinds: list[tuple[int, Callable[[], str]]] = [
            (6, self.fault),
            (4, lambda: f"fault {self.some(order=0)}"),
            (10, lambda: f"read {self.one()}"),
            (14, lambda: f"write {self.one()}"),
            (5, self.fork),
            (3, lambda: f"zap {self.some()}"),
            (2, lambda: f"munmap {self.some()}"),
            (5, self.mremap),
            (5, lambda: f"mprotect {self.some()} {self.rng.choice(('ro', 'rw', 'rw'))}"),
            (4, lambda: f"split {self.rng.choice((self.large, self.some))()}"),
            (4, lambda: f"split-folio {self.folio()}" + self.rng.choice(("", " order 3", " order 4", " order 5"))),
            (4, lambda: f"collapse {self.some(order=self.system.levels.pmd)}"),
            (6, self.migrate),
            (4, lambda: f"swapout {self.some()}"),
            (3, lambda: f"reclaim {self.folio()}"),
            (2, lambda: f"pageout {self.some(order=self.rng.choice((0, 3, 5)))}"),
            (4, lambda: f"merge {self.one(mapped=1)} {self.one(mapped=1)}"),
            (2, lambda: f"pin {self.one(mapped=1)}"),
            (2, lambda: f"unpin {self.one(mapped=1)}"),
            (1, lambda: "scan"),
            (2, lambda: f"deferred-split {self.rng.choice([*self.system.acct.models])}"),
            (1, lambda: f"clear-refs {self.process()}"),
            (2, lambda: f"device-private {self.some(order=self.rng.choice((0, 2, 4)))}"),
            (3, lambda: f"device-exclusive {self.one()}"),
            (1, lambda: f"exit {self.process()}"),
            (2, self.mmap),
            (1, self.cache),
        ]
        line = self.rng.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]()
        return self.step() if self.pmd > 512 and line.split()[0] in SLOW else line

    def fault(self) -> str:
        order = self.rng.choice((0, 2, 3, 4, 5, self.system.levels.pmd, self.system.levels.pmd))
        if order == self.system.levels.pmd:
            process, area = self.place()[0], self.rng.randrange(2) * self.pmd
            return f"fault {process} {area}..{area + self.pmd - 1}{self.rng.choice(('', ' pte', ' pmd', ' pmd'))}"
        return f"fault {self.some(order=order)}{self.rng.choice(('', '', ' pte'))}"

    def migrate(self) -> str:
        name = self.folio()
        folio = self.system.folios.get(name)
        if folio is not None and self.system.isolated[folio]:
            return f"migrate {name} end"
        return f"migrate {name}{self.rng.choice(('', ' begin', ' begin'))}"

    def fork(self) -> str:
        new = self.rng.choice([name for name in NAMES if name not in self.system.processes] or [NAMES[0]])
        return f"fork {self.process()} {new}{self.rng.choice(('', ' files'))}"

    def mremap(self) -> str:
        place, area = self.place()
        if area is None:
            return f"mremap {place} at 0x300000000"
        size = self.system.page_size
        base = self.rng.randrange(4, 64) * (self.pmd * size << 4)
        return f"mremap {place} at {base + self.rng.choice((0, 0, self.pmd // 2, 1, 16)) * size:#x}"

    def mmap(self) -> str:
        size = (self.pmd * self.system.page_size) >> 10
        what = self.rng.choice(
            (
                f"anon {size}K",
                f"f {self.pmd}..{self.pmd + 63}",
                f"f 0..{self.pmd - 1}",
                "g 16..79",
                f"f {self.pmd}..{self.pmd + 63} private",
                f"g {self.pmd - 64}..{self.pmd + 63} private",
            )
        )
        return f"mmap {self.rng.choice(NAMES)} {self.rng.choice('uvw')} {what}"

    def cache(self) -> str:
        first = self.rng.choice((0, self.pmd, self.pmd + 16, 64))
        size = self.rng.choice((1, 4, 16, self.pmd))
        name = f"S{self.rng.randrange(1000)}"
        return f"folio {name} {self.rng.choice('fg')} {first // size * size}..{first // size * size + size - 1}"


def opening(system: System) -> list[str]:
    """Two files with large and small folios, a process with anonymous, private and shared areas."""
    pmd, size = system.levels.size(1), (system.levels.size(1) * system.page_size) >> 10
    small = [f"folio R{n} f {pmd + 4 * n}..{pmd + 4 * n + 3}" for n in range(8)]
    return [
        f"file f file {2 * size}K",
        f"file g shmem {2 * size}K",
        f"folio S f 0..{pmd - 1}",
        *small,
        f"folio T g 0..{pmd - 1}",
        f"folio T2 g {pmd}..{pmd + 15}",
        f"mmap A v anon {2 * size}K",
    ]


# ---- running


def do(system: System, text: str) -> bool:
    """One step; whether it was carried out. A refused one must have changed nothing."""
    words = Words(Line(1, tuple(text.split())), "story")
    before = state(system)
    try:
        STEPS[words.verb](system, words)
        words.done()
        return True
    except (InputError, Rejected) as error:
        refusal = error
    assert "no meaning here" not in str(refusal)
    assert isinstance(refusal, InputError) or words.verb == "unpin", str(refusal)
    assert state(system) == before, f"refused ({refusal}), but it changed something"
    return False


def close(system: System, tables: int) -> None:
    """Everybody exits, pins are dropped, migrations end: only the page cache and `tables` roots are left."""
    for name in [*system.processes]:
        STEPS["exit"](system, Words(Line(1, ("exit", name)), "story"))
    for folio in [*system.folios.values()]:
        system.acct.unpin(folio, folio.pins) if folio.pins else None
        if system.isolated[folio]:
            name = system.name_of(folio)
            STEPS["migrate"](system, Words(Line(1, ("migrate", name, "end")), "story"))
        elif not folio.refs:
            system.unreferenced(folio)
    assert recount_problems(system) == []
    cached = {folio for file in system.files.values() for folio in file.folios.values()}
    left = [name for name, folio in system.folios.items() if folio not in cached]
    assert left == [], f"still there: {left[:4]}"
    assert {f for f in cached if not system.is_alive(f)} == set()
    assert system.swap.counts == {}
    used = [pa for pa in range(0, 64 << 20, system.page_size) if pa in system.table_frames]
    assert len(used) == tables, f"{len(used)} frames hold tables, {tables} processes had a root"


def run(arch: str, lines: list[str]) -> tuple[int, str]:
    """(the step that fails, how), or (-1, "")."""
    system = System(Settings(arch))
    roots = 0
    for nth, line in enumerate(lines):
        problem, forks = attempt(system, line, nth)
        roots += forks
        if problem:
            return nth, problem
    try:
        close(system, roots)
    except Exception as error:
        return len(lines), f"at the end: {type(error).__name__}: {error}"
    return -1, ""


def attempt(system: System, line: str, seed: int) -> tuple[str, int]:
    """(what goes wrong at a step, how many processes it made)."""
    made = len(system.processes)
    ids = {process.mm.id for process in system.processes.values()}
    try:
        do(system, line)
    except Exception as error:
        return f"{type(error).__name__}: {error}", 0
    problem = next(wrong(system, random.Random(seed)), "")
    new = [p for p in system.processes.values() if p.mm.id not in ids]
    return problem, len(new) if len(system.processes) >= made else 0


def shortened(arch: str, lines: list[str], problem: str) -> list[str]:
    """Fewer steps that fail with the same words (figures aside)."""
    kind = "".join(c for c in problem if c.isalpha())[:24]
    size = len(lines) // 2
    while size:
        at = 0
        while at < len(lines):
            fewer = lines[:at] + lines[at + size :]
            nth, found = run(arch, fewer)
            if found and "".join(c for c in found if c.isalpha())[:24] == kind:
                lines = fewer[: nth + 1]
            else:
                at += size
        size //= 2
    return lines


def campaign(arch: str, seed: int, steps: int) -> str:
    """A random scenario; empty, or the message of a failure."""
    rng = random.Random(f"{arch} {seed}")
    system = System(Settings(arch))
    author, lines = Author(system, rng), []
    problem, roots = "", 0
    todo = [*opening(system), *rng.choice(([], [f"fault A v 0..{author.pmd - 1}"])), author.mmap(), author.mmap()]
    while len(lines) < steps and not problem:
        lines.append(todo.pop(0) if todo else author.step())
        problem, made = attempt(system, lines[-1], len(lines) - 1)
        roots += made
    if not problem:
        try:
            close(system, roots)
        except Exception as error:
            problem = f"at the end: {type(error).__name__}: {error}"
    if not problem:
        return ""
    least = shortened(arch, lines, problem)
    story = "\n".join(["", f"arch {arch}", *least])
    return f"seed {seed}: {run(arch, least)[1]}{story}"


CAMPAIGNS = {"x86_64": 60, "arm64-4k": 60, "x86_64-5level": 50, "arm64-16k": 40}
"""Steps of each random scenario, the opening included."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("arch", CAMPAIGNS)
def test_random_scenarios(arch: str, seed: int) -> None:
    print(f"seed {seed}")
    failure = campaign(arch, seed, CAMPAIGNS[arch])
    assert failure == "", failure


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHES)
def test_many_random_scenarios(arch: str) -> None:
    for seed in range(100, 130):
        print(f"seed {seed}")
        failure = campaign(arch, seed, 100 if arch in CAMPAIGNS else 40)
        assert failure == "", failure
