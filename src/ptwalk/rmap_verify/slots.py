"""The mm-id slots of large folios: they depend on history, so a legal difference is adopted from the kernel."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from ..rmap.adopt.process import runs
from ..rmap.folio import Folio
from ..rmap.mm_id import MM_ID_DUMMY
from .structs import StructPages

if TYPE_CHECKING:
    from .adopted import Adopted
    from .compare import Comparison

Slot = tuple[int, int]
"""An mm id and its `_mm_id_mapcount` (biased)."""
_SHARED, _ID = 1 << 31, (1 << 31) - 1  # the top bit of the second id, 64-bit kernels (include/linux/mm_types.h)


def kernel_slots(structs: StructPages, folio: Folio) -> tuple[list[Slot], bool] | None:
    """The two slots and the shared bit as the kernel holds them; None where they were not captured."""
    slots: list[Slot] = []
    shared = 0
    for i in (0, 1):
        mm_id = structs.field(folio.pfn, "_mm_id", i, signed=False)
        count = structs.field(folio.pfn, "_mm_id_mapcount", i)
        if mm_id is None or count is None:
            return None
        slots.append((mm_id & _ID, count))
        shared = mm_id & _SHARED
    return slots, bool(shared)


def real_counts(adopted: Adopted) -> dict[Folio, Counter[int]]:
    """How many entries of each mm map each folio outside hugetlb, counted from the tables."""
    found: dict[Folio, Counter[int]] = defaultdict(Counter)
    for process in adopted.processes:
        for folio, level, _, n in runs(process, adopted.frames):
            found[folio][process.mm.id] += n >> adopted.acct.rules.levels.order(level)
    return found


def _names(adopted: Adopted, folios: list[Folio], real: dict[Folio, Counter[int]]) -> dict[int, int]:
    """Which of our mm ids each of the kernel's stands for: the one whose counts agree most often.

    Right after a fork parent and child agree with each other everywhere; then the slots' order decides, for processes
    were adopted in the order in which they were made.
    """
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for folio in folios:
        slots = kernel_slots(adopted.structs, folio)
        for at, (mm_id, count) in enumerate(slots[0] if slots else ()):
            for place, (ours, entries) in enumerate(real[folio].items()):
                if mm_id != MM_ID_DUMMY and entries == count + 1:
                    votes[mm_id][ours] += 2 if place == at else 1
    return {mm_id: counts.most_common(1)[0][0] for mm_id, counts in votes.items()}


def compare_slots(found: Comparison) -> None:
    """Compare slots and shared bit of every large folio; what a difference of history explains is adopted."""
    adopted, model = found.adopted, found.model
    if "_mm_id" not in adopted.structs.layout:
        return
    real = real_counts(adopted)
    folios = [folio for folio in adopted.frames.folios.values() if folio.is_large and not folio.kind.is_hugetlb]
    names = _names(adopted, folios, real)
    for folio in folios:
        kernel = kernel_slots(adopted.structs, folio)
        if kernel is None:
            continue
        slots = [(names.get(mm_id, -mm_id), count) for mm_id, count in kernel[0]]
        counters = model.of(folio)
        ours = list(zip(counters.mm_id, counters.mm_id_mapcount, strict=True))
        mine, name = _text(ours, counters.shared), "struct._mm_id"
        if mine != _text(slots, kernel[1]) and is_legal(slots, kernel[1], real[folio]):
            name = "struct._mm_id (other history)"
            counters.mm_id, counters.mm_id_mapcount = [s[0] for s in slots], [s[1] for s in slots]
            counters.shared = kernel[1]
        found.check(name, mine, _text(slots, kernel[1]), folio.pfn)


def _text(slots: list[Slot], shared: bool) -> str:
    """Slots and shared bit in words, whatever the slots' order."""
    return " ".join(f"{mm_id}:{count}" for mm_id, count in sorted(slots)) + (" shared" if shared else "")


def is_legal(slots: list[Slot], shared: bool, real: Counter[int]) -> bool:
    """Whether some history can have led to these slots: no slot counts more than its mm maps, a free one counts
    nothing, two in use or several mms mean shared, and not shared means that one slot accounts for every mapping.

    >>> is_legal([(1, 15), (0, -1)], True, Counter({1: 16}))
    True
    >>> is_legal([(1, 15), (0, -1)], False, Counter({1: 16, 2: 16}))
    False
    """
    used = [(mm_id, count + 1) for mm_id, count in slots if mm_id != MM_ID_DUMMY]
    if any(count != -1 for mm_id, count in slots if mm_id == MM_ID_DUMMY):
        return False
    if any(not 0 < count <= real[mm_id] for mm_id, count in used) or len({mm_id for mm_id, _ in used}) != len(used):
        return False
    total = sum(real.values())
    exclusive = not total or any(count == total for _, count in used)
    return shared if len(used) == 2 else shared or exclusive
