"""Exhaustive exploration: every sequence of operations on one small folio, all models against a brute-force recount.

States that differ only in which mm is which are one state. Every primitive call is checked: the counters against the
recount, the partially-mapped flag against its rule applied to the mappings before and after, the models against each
other. A failure names the shortest sequence of operations that leads to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..mmu.progress import tracked
from .calls import Accounting
from .folio import Folio, Kind
from .levels import Level, LevelOrders, Rules
from .models import MODELS, Model
from .stream import Stream
from .truth import Truth, problems, recount, statistics_problems

Operation = tuple[str, tuple[int | bool | Level, ...]]
"""The name of a Stream method and its arguments."""


class Violation(AssertionError):
    """A state in which a model disagrees with the recount; the message holds the operations that lead there."""


class CheckedStream(Stream):
    """A Stream that recounts after every primitive call."""

    def __init__(self, acct: Accounting, locked: tuple[int, ...] = ()) -> None:
        super().__init__(acct, locked)
        self.before: dict[int, Truth] = {}
        self.flags: dict[tuple[int, str], bool] = {}

    def truth(self, f: int) -> Truth:
        """The recount of folio f."""
        mappings = (
            (self.mm(m).id, *entry)
            for (folio, m), mapped in self.maps.items()
            if folio == f
            for entry in mapped.entries()
        )
        return recount(self.folios[f].nr_pages, mappings, self.levels)

    def _wrote(self, *call: str | int) -> None:
        super()._wrote(*call)
        f = int(call[1])
        folio, truth = self.folios[f], self.truth(f)
        found = [problem for model in self.acct.models.values() for problem in problems(model, folio, truth)]
        found += statistics_problems(self.acct, self.folios)
        found += self._flag_problems(f, str(call[0]), truth)
        found += self._reference_problems(folio, truth)
        self.before[f] = truth
        if found:
            raise Violation(f"after {call}: {'; '.join(found)}")

    def _flag_problems(self, f: int, name: str, truth: Truth) -> list[str]:
        folio, found = self.folios[f], []
        before = self.before.get(f)
        for model in self.acct.live(folio):
            want = self.flags.get((f, model.name), False)
            if name == "rem" and before is not None:
                want = want or flag_expected(model, folio, before, truth)
            if model.of(folio).partially_mapped != want:
                found.append(f"{model.name}: partially mapped is {model.of(folio).partially_mapped}, expected {want}")
            self.flags[f, model.name] = want
        return found

    def _reference_problems(self, folio: Folio, truth: Truth) -> list[str]:
        model = self.acct.driver
        expected = model.expected_ref_count(folio)
        return [] if folio.refs == expected else [f"{folio.refs} references, {expected} expected"]

    def twin(self) -> CheckedStream:
        """An independent copy of everything."""
        rules, driver = self.acct.rules, self.acct.driver.name
        acct = Accounting(self.acct.models, driver=driver, rules=rules)
        stream = CheckedStream(acct, tuple(self.locked))
        stream.folios = [folio.copy() for folio in self.folios]
        renamed = dict(zip(self.folios, stream.folios, strict=True))
        for name, model in self.acct.models.items():
            acct.models[name].stats = model.stats.copy()
            acct.models[name].deferred_split_queue = {renamed[folio]: None for folio in model.deferred_split_queue}
        self.copy_into(stream)
        stream.before, stream.flags = dict(self.before), dict(self.flags)
        return stream


def flag_expected(model: Model, folio: Folio, before: Truth, after: Truth) -> bool:
    """Whether the removal that led from `before` to `after` must flag the folio, from the mappings alone."""
    if not folio.is_anon or folio.is_device_private or folio.order <= 1 or folio.in_swapcache:
        return False
    if model.name == "precise":
        puds = before.entire - before.pmds != after.entire - after.pmds
        return 0 < after.mapped_pages < before.mapped_pages and not puds
    if model.name == "no-page-mapcount":
        return 0 < after.mappings < folio.nr_pages and not after.entire
    return 0 < after.total < folio.nr_pages


@dataclass(frozen=True)
class World:
    """What is explored: one folio, how many mms, which models, and how large a PMD is (its order).

    >>> World().pmd_order
    2
    """

    order: int = 2
    kind: Kind = Kind.ANON
    mms: int = 3
    pmd_order: int = 2
    models: tuple[str, ...] = tuple(MODELS)
    pins: bool = True
    swapcache: bool = True

    def start(self) -> CheckedStream:
        """The folio, unmapped."""
        rules = Rules(levels=LevelOrders(self.pmd_order, self.pmd_order + 2))
        stream = CheckedStream(Accounting(self.models, rules=rules))
        stream.folios = [stream.acct.folio(self.order, self.kind)]
        stream.before[0] = stream.truth(0)
        return stream


@dataclass
class Exploration:
    """What was explored; `complete` if no state was left unexpanded at the depth.

    >>> print(Exploration(2, 10, 30, False, 0.5))
    depth 2: 10 states, 30 transitions, not complete, 0.5 s
    """

    depth: int
    states: int
    transitions: int
    complete: bool
    seconds: float

    def __str__(self) -> str:
        complete = "complete" if self.complete else "not complete"
        counts = f"{self.states} states, {self.transitions} transitions"
        return f"depth {self.depth}: {counts}, {complete}, {self.seconds:.1f} s"


def explore(world: World, depth: int, max_states: int | None = None) -> Exploration:
    """Breadth first through all states within `depth` operations (or the first max_states); raises Violation."""
    begun = time.monotonic()
    start = world.start()
    seen = {state_key(start, world)}
    frontier: list[tuple[CheckedStream, tuple[Operation, ...]]] = [(start, ())]
    transitions = 0
    for step in range(depth):
        reached: list[tuple[CheckedStream, tuple[Operation, ...]]] = []
        for stream, path in tracked(frontier, f"states of {step} operations", every=16):
            for operation in legal_operations(stream, world):
                if max_states is not None and len(seen) >= max_states:
                    return Exploration(len(path), len(seen), transitions, False, time.monotonic() - begun)
                after = apply(stream, operation, path)
                transitions += 1
                key = state_key(after, world)
                if key not in seen:
                    seen.add(key)
                    reached.append((after, (*path, operation)))
        frontier = reached
    return Exploration(depth, len(seen), transitions, not frontier, time.monotonic() - begun)


def apply(stream: CheckedStream, operation: Operation, path: tuple[Operation, ...]) -> CheckedStream:
    """The state after the operation; raises Violation with the whole path."""
    after = stream.twin()
    name, arguments = operation
    try:
        getattr(after, name)(*arguments)
    except Violation as error:
        raise Violation(f"{[*path, operation]}: {error}") from error
    if after.acct.warnings:
        raise Violation(f"{[*path, operation]}: {after.acct.warnings}")
    return after


def state_key(stream: CheckedStream, world: World) -> tuple[object, ...]:
    """The state with mm numbers forgotten: equal keys behave equally, whatever happened before."""
    folio = stream.folios[0]
    slots = stream.acct.driver.of(folio).mm_id
    mms = []
    for m in range(1, world.mms + 1):
        mapped = stream.maps.get((0, m))
        mm = stream.mms.get(m)
        where = slots.index(m) if m in slots else 2
        mms.append((where, mapped.key() if mapped else (), bool(mm and mm.has_pinned)))
    counters = tuple(model.of(folio).key() for model in stream.acct.models.values())
    shared = (folio.exclusive.key(), folio.refs, folio.pins, folio.in_swapcache, folio.fresh)
    return (tuple(sorted(mms)), counters, shared)


def legal_operations(stream: CheckedStream, world: World) -> Iterator[Operation]:
    """Everything a kernel could do next to this folio."""
    folio = stream.folios[0]
    mms = range(1, world.mms + 1)
    if folio.fresh:
        yield "new", (0, 1, True)
        yield "new", (0, 1, False)
        return
    mapping = [m for m in mms if stream.maps.get((0, m))]
    empty = [m for m in mms if m not in mapping]
    for m in mapping:
        if empty:
            yield "fork", (m, empty[0])
        yield "exit", (m,)
        yield from _removals(stream, m)
    for m in mapping + empty[:1]:
        yield from _additions(stream, m)
    if world.pins and folio.is_anon:
        if folio.pins:
            yield "unpin", (0, 1)
        else:
            yield from (("pin", (0, m, 1)) for m in mapping)
    if world.swapcache and folio.is_anon:
        yield "swc", (0, not folio.in_swapcache)


def _removals(stream: CheckedStream, m: int) -> Iterator[Operation]:
    folio, mapped = stream.folios[0], stream.mapped(0, m)
    for first, n, count in mapped.ptes.runs():
        for page in range(first, first + n if count else first):
            yield "rem", (0, m, Level.PTE, page, 1)
            if folio.is_anon:
                yield "unmap", (0, m, Level.PTE, page, 1)
                if not folio.exclusive[page]:
                    yield "wp", (0, m, page)
        if count and n > 1:
            yield "rem", (0, m, Level.PTE, first, n)
    for first, level in mapped.leaves:
        size = stream.levels.size(level)
        yield "rem", (0, m, level, first, size)
        if folio.is_anon:
            yield "unmap", (0, m, level, first, size)
            if level == Level.PMD:
                yield "split", (0, m, first)


def _additions(stream: CheckedStream, m: int) -> Iterator[Operation]:
    folio, mapped = stream.folios[0], stream.mapped(0, m)
    pages = stream.truth(0).pages
    size = stream.levels.size(Level.PMD)
    ranges = [(Level.PTE, page, 1) for page in range(folio.nr_pages)]
    if folio.nr_pages == size or stream.acct.driver.name == "total-mapped-pages":
        ranges += [(Level.PMD, page, size) for page in range(0, folio.nr_pages - size + 1, size)]
    for level, first, n in ranges:
        if mapped.overlaps(first, n):
            continue
        if not folio.is_anon:
            yield "add", (0, m, level, first, n, False)
        elif not any(pages[first : first + n]) and (n == 1 or not folio.exclusive.any(first, n)):
            yield "add", (0, m, level, first, n, True)
        if folio.is_anon and not _any_exclusive(stream, first, n):
            yield "add", (0, m, level, first, n, False)


def _any_exclusive(stream: CheckedStream, first: int, n: int) -> bool:
    """Whether a page of the range is exclusive: by its own mark, or by that of a larger leaf that maps it."""
    exclusive = stream.folios[0].exclusive
    return exclusive.any(first, n) or any(
        exclusive[page] and page < first + n and first < page + stream.levels.size(level)
        for mapped in stream.maps.values()
        for page, level in mapped.leaves
    )
