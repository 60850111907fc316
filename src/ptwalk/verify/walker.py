"""The reference walker itself, put to the test at both ends of every run of alike entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..mmu.memory import PhysicalMemory
from ..mmu.regime import EntryType, Regime
from ..mmu.walk import Access, AccessKind, Fault, Outcome, Translation, outcome
from .tables import Item

_ACCESSES = tuple(Access(kind, user) for user in (True, False) for kind in (AccessKind.READ, AccessKind.EXECUTE))


def samples(items: Iterable[Item], page_shift: int) -> Iterator[Item]:
    """The first and the last item of every run with one level, one kind and consecutive addresses."""
    last: Item | None = None
    first = True
    for item in items:
        alike = last is not None and (
            (item.level, item.traits.kind, item.va)
            == (last.level, last.traits.kind, last.va + (last.nr_pages << page_shift))
        )
        if not alike:
            if last is not None and not first:
                yield last
            yield item
        first = not alike
        last = item
    if last is not None and not first:
        yield last


def check_item(memory: PhysicalMemory, regime: Regime, item: Item, page_shift: int) -> str:
    """An empty text where the walker agrees with the item, otherwise what it says instead."""
    mapped = regime.classify(item.level, item.raw).type is EntryType.LEAF
    offset = (item.nr_pages << page_shift) - 1
    found: list[Outcome] = []
    for access in _ACCESSES:
        found.append(outcome(regime.walk(memory, item.va + offset, access)))
        if isinstance(found[-1], Translation):
            break
    result = found[-1]
    if isinstance(result, Translation):
        expected = ((item.pfn or 0) << page_shift) + offset
        if mapped and result.pa == expected and result.page_shift == item.level.shift:
            return ""
        return f"{result.pa:#018x} in a page of {1 << result.page_shift:#x} bytes"
    return _judge_faults(found, item, mapped)


def _judge_faults(found: list[Outcome], item: Item, mapped: bool) -> str:
    """Faults are right where the entry maps nothing for the hardware, or where each blames this very entry."""
    faults = [result for result in found if isinstance(result, Fault)]
    if not mapped and all(fault.entry_pa == item.entry_pa for fault in faults):
        return ""
    return f"{faults[0].name} by {faults[0].rule}"
