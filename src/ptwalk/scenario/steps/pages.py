"""Steps that the kernel does to pages by itself: splits, collapse, migration, reclaim, KSM."""

from __future__ import annotations

from collections.abc import Callable

from ...rmap.folio import Folio, Kind
from ...rmap.levels import Level
from ...rmap.models import MODELS
from ...rmap.operations import collapse, device, ksm, migrate, partial, reclaim, swap, unmap
from ...rmap.operations.write import access
from ...rmap.space.area import Area
from ...rmap.space.process import Leaf, Process
from ...rmap.space.recount import recount_problems
from ...rmap.space.system import System
from ...rmap.views.inputs import State
from ..operands import (
    addresses_of,
    area_of,
    locate,
    next_name,
    page_of,
    process_of,
    range_of,
    require_base_pages,
    require_one_vma,
    require_present,
    require_unused,
)
from ..script import Words


def _folio(system: System, words: Words, *, anon: bool = False) -> Folio:
    name = words.name("folio")
    folio = system.folios.get(name)
    if folio is None or (anon and not folio.is_anon):
        raise words.error(f"no {'anonymous ' if anon else ''}folio of this name exists", name)
    if folio.kind.is_hugetlb:
        raise words.error("not done to hugetlb pages", name)
    return folio


def _area(system: System, words: Words) -> tuple[Process, Area]:
    process = process_of(system, words)
    area = area_of(process, words)
    require_base_pages(words, area)
    return process, area


def _migrate(system: System, words: Words) -> list[str]:
    """All at once, or `begin` and `end` with migration entries in between."""
    folio = _folio(system, words)
    part = words.maybe(("begin", "end").__contains__)
    if (part == "end") != bool(system.isolated[folio]):
        raise words.error(f"{system.name_of(folio)} is {'not ' if part == 'end' else ''}under migration")
    if part == "begin":
        return migrate.begin(system, folio)
    if part == "end":
        return migrate.end(system, folio)
    return migrate.begin(system, folio) or migrate.end(system, folio)


def _split_folio(system: System, words: Words) -> list[str]:
    order = words.option("order") or "0"
    folio = _folio(system, words)
    if not order.isdecimal() or int(order) >= folio.order or (int(order) == 1 and folio.is_anon):
        raise words.error(f"a folio of order {folio.order} is not split to this order", order)
    name = system.name_of(folio)
    return [] if migrate.split_folio(system, folio, int(order)) else [f"-EAGAIN: {name} may be pinned and is not split"]


def _collapse(system: System, words: Words) -> list[str]:
    name = words.option("as") or next_name(system)
    process, area = _area(system, words)
    first, end = range_of(area, words)
    size = system.levels.size(Level.PMD)
    va = area.va(first)
    if end - first != size or (va // system.page_size) % size or (area.file and area.private):
        raise words.error(f"pages {first}..{end - 1} are not one aligned PMD of {size} anonymous or shared pages")
    require_one_vma(words, area, (first, end))
    leaves = process.leaves(va, area.va(end))
    if any(leaf.level != Level.PTE for leaf in leaves) or not (leaves or process.nonpresent(va, area.va(end))):
        raise words.error(f"{process.name} maps these pages by a PMD already, or none of them")
    require_unused(system, words, name)
    if area.file is None:
        return collapse.collapse(system, process, va, name)
    if (area.offset + first) % size:
        raise words.error(f"page {area.offset + first} of {area.file.name} does not begin a PMD of the file")
    return collapse.collapse_file(system, area, first, name)


def _split(system: System, words: Words) -> list[str]:
    process, area = _area(system, words)
    start, end = addresses_of(area, words)
    leaves = [leaf for leaf in process.leaves(start, end) if leaf.level != Level.PTE]
    if not leaves:
        raise words.error(f"{process.name} maps nothing there by a PMD or PUD")
    return [note for leaf in leaves for note in unmap.split(system, process, leaf.va)]


def _swapcache(system: System, words: Words) -> list[str]:
    folio = _folio(system, words, anon=True)
    wanted = words.choice("on or off", ("on", "off")) == "on"
    if not wanted and system.swap.is_counted(folio):
        raise words.error("entries refer to its swap slots, so it stays in the swap cache", system.name_of(folio))
    if wanted:
        system.acct.set_swapcache(folio, True)
    else:
        system.leave_swap_cache(folio)
    return []


def _swapout(system: System, words: Words) -> list[str]:
    process, area = _area(system, words)
    start, end = addresses_of(area, words)
    leaves = process.leaves(start, end)
    if not any(leaf.folio.is_anon for leaf in leaves):
        what = "only anonymous pages are swapped out this way" if leaves else f"{process.name} maps nothing there"
        raise words.error(what, area.name)
    if any(leaf.folio.kind is Kind.KSM for leaf in leaves):
        raise words.error("pages of KSM are not swapped out here")
    return swap.swapout(system, process, start, end)


def _reclaim(system: System, words: Words) -> list[str]:
    folio = _folio(system, words)
    if folio.kind is Kind.KSM:
        raise words.error("pages of KSM are not reclaimed here", system.name_of(folio))
    return reclaim.reclaim(system, folio)


def _pageout(system: System, words: Words) -> list[str]:
    process, area = _area(system, words)
    start, end = addresses_of(area, words)
    return reclaim.pageout(system, process, start, end)


def _merge(system: System, words: Words) -> list[str]:
    kept, first, va = locate(system, words)
    given, second, other = locate(system, words)
    require_present(system, words, first, second)
    for leaf in (first, second):
        if not leaf.folio.is_anon or leaf.folio.in_swapcache or leaf.folio.kind.is_hugetlb:
            name = system.name_of(leaf.folio)
            raise words.error("only anonymous pages outside the swap cache are merged", name)
    if second.folio.kind is Kind.KSM or (first.folio is second.folio and not first.folio.is_large):
        raise words.error("the second page is merged already, or is the first one", system.name_of(second.folio))
    if first.folio is second.folio and _page_at(kept, first, va) == _page_at(given, second, other):
        raise words.error("both are the same page", system.name_of(first.folio))
    return ksm.merge(system, (kept, va), (given, other))


def _page_at(process: Process, leaf: Leaf, va: int) -> int:
    return leaf.page + (va - leaf.va) // process.page_size


def _scan(system: System, words: Words) -> list[str]:
    return partial.scan(system)


def _deferred_split(system: System, words: Words) -> list[str]:
    model = words.choice("the model", tuple(MODELS)) if words.left else system.acct.driver.name
    return partial.deferred_split(system, model)


def _recount(system: System, words: Words) -> list[str]:
    """Every step is followed by a recount; this one says how much it looked at."""
    found = recount_problems(system)
    entries = sum(len(process.leaves(0, process.tables.tree.va_end)) for process in system.processes.values())
    told = f"{entries} entries, {len(system.folios)} folios under {len(system.acct.models)} models"
    return found or [f"recounted from the page tables: {told}, every figure agrees"]


def _device_private(system: System, words: Words) -> list[str]:
    process, area = _area(system, words)
    start, end = addresses_of(area, words)
    if not any(leaf.folio.is_anon for leaf in process.leaves(start, end)):
        raise words.error(f"{process.name} maps no anonymous page there")
    return device.to_device(system, process, start, end)


def _device_exclusive(system: System, words: Words) -> list[str]:
    """The driver faults the page in as for a write first, so that it is exclusive."""
    name = words.option("as") or next_name(system)
    process = process_of(system, words)
    va = page_of(process, words)
    area = process.area(va)
    require_base_pages(words, area)
    if not (area.file is None and area.writable(va)):
        raise words.error("only writable anonymous memory can be exclusive to a device", area.name)
    require_unused(system, words, name)
    notes = access(system, process, va, write=True, name=name)
    if not process.leaves(va, va + 1):  # the fault waits or fails
        return notes
    unmap.split_down(system, process, va, va + 1)
    leaf = process.leaf(va)
    if leaf.state is not State.PRESENT:
        raise words.error(f"{system.name_of(leaf.folio)} may be pinned and stays the device's")
    return notes + device.make_exclusive(process, va)


STEPS: dict[str, Callable[[System, Words], list[str]]] = {
    "migrate": _migrate,
    "split": _split,
    "split-folio": _split_folio,
    "collapse": _collapse,
    "swapcache": _swapcache,
    "swapout": _swapout,
    "reclaim": _reclaim,
    "pageout": _pageout,
    "merge": _merge,
    "device-private": _device_private,
    "device-exclusive": _device_exclusive,
    "scan": _scan,
    "deferred-split": _deferred_split,
    "recount": _recount,
}
