"""The verbs of a scenario: operands checked, then the operation."""

from __future__ import annotations

from collections.abc import Callable

from ..rmap.folio import Folio, Kind
from ..rmap.levels import Level
from ..rmap.models import MODELS
from ..rmap.runs import PageRuns
from . import ksm, moves, operations, reclaim
from .machine import ARCHES, Area, File, Leaf, Machine, Process, Settings
from .operands import area_of, locate, process_of, range_of
from .script import Words
from .swap import free_unused, swap_entries

MAX_ENTRIES = 1 << 16
"""PTEs that one fault may write."""
MAX_AREA = 1 << 38
"""Bytes of an area or a file."""

_KINDS = {"file": Kind.FILE, "shmem": Kind.SHMEM}
_LEVELS = ("pte", "pmd", "pud")
_LIMITS = {"mapcount": "mapcount", "total": "total_mapped_pages", "refs": "refcount"}
_FIRST_AREA = 1 << 32


# ---- settings


def _arch(settings: Settings, words: Words) -> None:
    settings.arch = words.choice("the architecture", tuple(ARCHES))


def _bits(settings: Settings, words: Words) -> None:
    settings.bits = int(words.choice("the word width", ("64", "32")))


def _literal(settings: Settings, words: Words) -> None:
    settings.literal = True


def _limit(settings: Settings, words: Words) -> None:
    name = words.choice("the limit", tuple(_LIMITS))
    settings.limits[_LIMITS[name]] = words.number("the limit")


SETTINGS: dict[str, Callable[[Settings, Words], None]] = {
    "arch": _arch,
    "bits": _bits,
    "literal": _literal,
    "limit": _limit,
}
"""Lines that must stand before the first step."""


# ---- steps


def _file(machine: Machine, words: Words) -> list[str]:
    name, kind = words.name("file"), words.choice("the kind", tuple(_KINDS))
    if name in machine.files:
        raise words.error("this file exists already", name)
    machine.files[name] = File(name, _KINDS[kind], _nr_pages(machine, words))
    return []


def _nr_pages(machine: Machine, words: Words) -> int:
    size = words.size()
    if not 0 < size <= MAX_AREA or size % machine.page_size:
        raise words.error(f"the size is no multiple of {machine.page_size} bytes up to 256G", size)
    return size // machine.page_size


def _folio(machine: Machine, words: Words) -> list[str]:
    name, file_name = words.name("folio"), words.name("file")
    if file_name not in machine.files:
        raise words.error("no file of this name exists", file_name)
    file = machine.files[file_name]
    first, end = words.pages() or (0, file.nr_pages)
    order = _order(machine, words, end - first)
    if first % (1 << order) or end > file.nr_pages:
        text = (
            f"pages {first}..{end - 1} are not aligned to their number inside the {file.nr_pages} pages of {file.name}"
        )
        raise words.error(text)
    for start, other in file.folios.items():
        if start < end and first < start + other.nr_pages:
            raise words.error(f"pages {first}..{end - 1} overlap folio {machine.name_of(other)}")
    _unused(machine, words, name)
    file.folios[first] = machine.new_folio(name, order, file.kind)
    return []


def _unused(machine: Machine, words: Words, name: str) -> None:
    if name in machine.folios:
        raise words.error("a folio of this name exists already", name)


def _order(machine: Machine, words: Words, nr_pages: int) -> int:
    order = nr_pages.bit_length() - 1
    if nr_pages != 1 << order or order > machine.levels.pud:
        raise words.error(f"a folio has a power of two of pages, up to {1 << machine.levels.pud}", nr_pages)
    return order


def _mmap(machine: Machine, words: Words) -> list[str]:
    name, area_name, what = words.name("process"), words.name("area"), words.name("anon or file")
    at = words.option("at")
    file = None
    offset = 0
    if what == "anon":
        nr_pages = _nr_pages(machine, words)
    elif what in machine.files:
        file = machine.files[what]
        offset, end = words.pages() or (0, file.nr_pages)
        nr_pages = end - offset
        if end > file.nr_pages:
            raise words.error(f"pages {offset}..{end - 1} are not inside the {file.nr_pages} pages of {file.name}")
    else:
        raise words.error("neither anon nor a file", what)
    process = machine.processes.get(name) or machine.process(name)
    if area_name in process.areas:
        raise words.error(f"process {name} has an area of this name already", area_name)
    size = nr_pages * machine.page_size
    start = _free_address(machine, process, size, offset) if at is None else _address(machine, process, words, at, size)
    process.areas[area_name] = Area(area_name, start, nr_pages, PageRuns(nr_pages), file, offset)
    return []


def _free_address(machine: Machine, process: Process, size: int, offset: int) -> int:
    """The first address behind all areas that is congruent to the file's offset, aligned for the largest leaf."""
    pmd, pud = (machine.levels.size(level) * machine.page_size for level in (Level.PMD, Level.PUD))
    align = min(max(1 << size.bit_length() - 1, pmd), pud)
    last = max((a.start + a.nr_pages * machine.page_size for a in process.areas.values()), default=_FIRST_AREA)
    return -(-last // align) * align + offset * machine.page_size % align


def _address(machine: Machine, process: Process, words: Words, text: str, size: int) -> int:
    try:
        start = int(text.replace("_", ""), 16)
    except ValueError:
        raise words.error("not an address", text) from None
    end = process.tables.tree.va_end
    if start % machine.page_size or not machine.page_size <= start <= end - size:
        raise words.error(f"no page-aligned address below {end:#x}", text)
    for other in process.areas.values():
        if start < other.start + other.nr_pages * machine.page_size and other.start < start + size:
            raise words.error(f"the range overlaps area {other.name}")
    return start


def _fault(machine: Machine, words: Words) -> list[str]:
    name, order = words.option("as"), words.option("order")
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = range_of(area, words)
    chosen = words.maybe(_LEVELS.__contains__)
    level = None if chosen is None else Level(_LEVELS.index(chosen))
    _check_level(machine, words, area, (first, end), level)
    _check_unmapped(machine, words, process, area, (first, end))
    if area.file is not None:
        if name or order:
            raise words.error("the folios of a file are declared with `folio`")
        _check_cached(machine, words, area, (first, end), level or Level.PTE)
        return operations.fault_file(machine, process, area, first, end, level or Level.PTE)
    size = end - first if order is None else 1 << _small(words, order)
    folio_order = _order(machine, words, size)
    if (area.start // machine.page_size + first) % size or (end - first) % size:
        raise words.error(f"pages {first}..{end - 1} are not aligned to a folio of {size} pages")
    return _fault_anon(machine, words, process, area, range(first, end, size), folio_order, level, name)


def _small(words: Words, text: str) -> int:
    if not text.isdecimal() or int(text) > 30:
        raise words.error("not an order", text)
    return int(text)


def _fault_anon(
    machine: Machine,
    words: Words,
    process: Process,
    area: Area,
    pages: range,
    order: int,
    level: Level | None,
    name: str | None,
) -> list[str]:
    if name is not None:
        _unused(machine, words, name)
        if len(pages) > 1:
            raise words.error("one name for several folios", name)
    if level is not None and machine.levels.order(level) > order:
        raise words.error(f"a {level.name} is larger than a folio of order {order}")
    for page in pages:
        folio = machine.new_folio(name or _next_name(machine), order, Kind.ANON)
        operations.fault_anon(machine, process, area.start + page * machine.page_size, folio, level)
    return []


def _next_name(machine: Machine) -> str:
    if "F" not in machine.folios:
        return "F"
    return next(f"F{nth}" for nth in range(2, len(machine.folios) + 3) if f"F{nth}" not in machine.folios)


def _check_level(machine: Machine, words: Words, area: Area, pages: tuple[int, int], level: Level | None) -> None:
    first, end = pages
    if level in (None, Level.PTE):
        if end - first > MAX_ENTRIES and (area.file is not None or level is not None):
            raise words.error(f"at most {MAX_ENTRIES} PTEs in one step", end - first)
        return
    assert level is not None
    size = machine.levels.size(level)
    if (area.start // machine.page_size + first) % size or (end - first) % size:
        raise words.error(f"pages {first}..{end - 1} are not whole {level.name}s of {size} pages")


def _check_unmapped(machine: Machine, words: Words, process: Process, area: Area, pages: tuple[int, int]) -> None:
    first, end = (area.start + page * machine.page_size for page in pages)
    leaves = machine.leaves(process, first, end)
    if leaves:
        page = (max(leaves[0].va, first) - area.start) // machine.page_size
        name = machine.name_of(leaves[0].folio)
        raise words.error(f"page {page} of {area.name} is mapped already (folio {name})")
    swapped = swap_entries(machine, process, first, end)
    if swapped:
        page = (swapped[0].va - area.start) // machine.page_size
        raise words.error(f"page {page} of {area.name} is swapped out, it comes back with swapin")


def _check_cached(machine: Machine, words: Words, area: Area, pages: tuple[int, int], level: Level) -> None:
    """Every page has a folio, and each large leaf lies in one folio, aligned as the leaf is."""
    assert area.file is not None
    size = machine.levels.size(level)
    at = pages[0]
    while at < pages[1]:
        found = area.file.at(area.offset + at)
        if found is None:
            raise words.error(f"page {area.offset + at} of {area.file.name} has no folio")
        start, folio = found
        page = area.offset + at - start
        if level != Level.PTE and (page % size or page + size > folio.nr_pages):
            name = machine.name_of(folio)
            raise words.error(f"a {level.name} at page {at} of {area.name} does not lie inside folio {name}")
        at += max(size, folio.nr_pages - page) if level == Level.PTE else size


def _fork(machine: Machine, words: Words) -> list[str]:
    src, name = process_of(machine, words), words.name("process")
    if name in machine.processes:
        raise words.error("a process of this name exists already", name)
    return operations.fork(machine, src, name, words.flag("files"))


def _zap(machine: Machine, words: Words) -> list[str]:
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = (area.start + page * machine.page_size for page in range_of(area, words))
    return operations.zap(machine, process, first, end)


def _munmap(machine: Machine, words: Words) -> list[str]:
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = range_of(area, words)
    notes = operations.zap(
        machine, process, area.start + first * machine.page_size, area.start + end * machine.page_size
    )
    area.gone.fill(first, end - first, 1)
    if area.gone.minimum(0, area.nr_pages):
        del process.areas[area.name]
    return notes


def _exit(machine: Machine, words: Words) -> list[str]:
    return operations.exit_mm(machine, process_of(machine, words))


def _mremap(machine: Machine, words: Words) -> list[str]:
    at = words.option("at")
    process = process_of(machine, words)
    area = area_of(process, words)
    if at is None:
        raise words.error("the new address is missing (at ADDRESS)")
    start = _address(machine, process, words, at, area.nr_pages * machine.page_size)
    moves.mremap(machine, process, area, start)
    return []


def _mprotect(machine: Machine, words: Words) -> list[str]:
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = (area.start + page * machine.page_size for page in range_of(area, words))
    moves.mprotect(machine, process, first, end, words.choice("the right", ("ro", "rw")) == "rw")
    return []


def _migrate(machine: Machine, words: Words) -> list[str]:
    return moves.migrate(machine, _anon_folio(machine, words))


def _collapse(machine: Machine, words: Words) -> list[str]:
    name = words.option("as") or _next_name(machine)
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = range_of(area, words)
    size = machine.levels.size(Level.PMD)
    if area.file is not None or end - first != size or (area.start // machine.page_size + first) % size:
        raise words.error(f"pages {first}..{end - 1} are not one aligned PMD of {size} anonymous pages")
    va = area.start + first * machine.page_size
    leaves = machine.leaves(process, va, va + size * machine.page_size)
    if not leaves or any(leaf.level != Level.PTE for leaf in leaves):
        raise words.error(f"{process.name} maps these pages by a PMD already, or none of them")
    _unused(machine, words, name)
    return moves.collapse(machine, process, va, name)


def _split(machine: Machine, words: Words) -> list[str]:
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = (area.start + page * machine.page_size for page in range_of(area, words))
    leaves = [leaf for leaf in machine.leaves(process, first, end) if leaf.level != Level.PTE]
    if not leaves:
        raise words.error(f"{process.name} maps nothing there by a PMD or PUD")
    return [note for leaf in leaves for note in operations.split(machine, process, leaf.va)]


def _write(machine: Machine, words: Words) -> list[str]:
    process, leaf, va = locate(machine, words)
    if not leaf.folio.is_anon:
        raise words.error(f"folio {machine.name_of(leaf.folio)} is a shared file's, which is never copied")
    return operations.write_fault(machine, process, va)


def _pins(machine: Machine, words: Words) -> tuple[Process, Folio, int]:
    process, leaf, _ = locate(machine, words)
    n = words.number("the number of pins") if words.left else 1
    if not 0 < n < 1 << 20:
        raise words.error("not a number of pins", n)
    return process, leaf.folio, n


def _pin(machine: Machine, words: Words) -> list[str]:
    process, folio, n = _pins(machine, words)
    machine.acct.pin(folio, process.mm, n)
    return []


def _unpin(machine: Machine, words: Words) -> list[str]:
    _, folio, n = _pins(machine, words)
    machine.acct.unpin(folio, n)
    return []


def _anon_folio(machine: Machine, words: Words) -> Folio:
    name = words.name("folio")
    folio = machine.folios.get(name)
    if folio is None or not folio.is_anon:
        raise words.error("no anonymous folio of this name exists", name)
    return folio


def _swapcache(machine: Machine, words: Words) -> list[str]:
    folio = _anon_folio(machine, words)
    wanted = words.choice("on or off", ("on", "off")) == "on"
    if not wanted and machine.swap.is_counted(folio):
        raise words.error("entries refer to its swap slots, so it stays in the swap cache", machine.name_of(folio))
    if not wanted:
        machine.swap.leave(folio)
    machine.acct.set_swapcache(folio, wanted)
    free_unused(machine, folio)
    return []


def _swapout(machine: Machine, words: Words) -> list[str]:
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = (area.start + page * machine.page_size for page in range_of(area, words))
    if area.file is not None:
        raise words.error("only anonymous pages are swapped out", area.name)
    leaves = machine.leaves(process, first, end)
    if not leaves:
        raise words.error(f"{process.name} maps nothing there")
    if any(leaf.folio.kind is Kind.KSM for leaf in leaves):
        raise words.error("pages of KSM are not swapped out here")
    return reclaim.swapout(machine, process, first, end)


def _swapin(machine: Machine, words: Words) -> list[str]:
    name = words.option("as") or _next_name(machine)
    process = process_of(machine, words)
    area = area_of(process, words)
    first, end = range_of(area, words)
    va = area.start + first * machine.page_size
    if end != first + 1:
        raise words.error("one page is wanted, not a range")
    if not swap_entries(machine, process, va, va + 1):
        raise words.error(f"page {first} of {area.name} is not swapped out by {process.name}")
    _unused(machine, words, name)
    return reclaim.swapin(machine, process, va, name)


def _merge(machine: Machine, words: Words) -> list[str]:
    kept, first, va = locate(machine, words)
    given, second, other = locate(machine, words)
    for leaf in (first, second):
        if not leaf.folio.is_anon or leaf.folio.in_swapcache:
            name = machine.name_of(leaf.folio)
            raise words.error("only anonymous pages outside the swap cache are merged", name)
    if second.folio.kind is Kind.KSM or (first.folio is second.folio and not first.folio.is_large):
        raise words.error("the second page is merged already, or is the first one", machine.name_of(second.folio))
    if first.folio is second.folio and _page_at(machine, first, va) == _page_at(machine, second, other):
        raise words.error("both are the same page", machine.name_of(first.folio))
    return ksm.merge(machine, (kept, va), (given, other))


def _page_at(machine: Machine, leaf: Leaf, va: int) -> int:
    return leaf.page + (va - leaf.va) // machine.page_size


def _scan(machine: Machine, words: Words) -> list[str]:
    return operations.scan(machine)


def _deferred_split(machine: Machine, words: Words) -> list[str]:
    model = words.choice("the model", tuple(MODELS)) if words.left else machine.acct.driver.name
    return operations.deferred_split(machine, model)


STEPS: dict[str, Callable[[Machine, Words], list[str]]] = {
    "file": _file,
    "folio": _folio,
    "mmap": _mmap,
    "fault": _fault,
    "fork": _fork,
    "zap": _zap,
    "munmap": _munmap,
    "exit": _exit,
    "mremap": _mremap,
    "mprotect": _mprotect,
    "migrate": _migrate,
    "collapse": _collapse,
    "split": _split,
    "write": _write,
    "cow": _write,
    "pin": _pin,
    "unpin": _unpin,
    "swapcache": _swapcache,
    "swapout": _swapout,
    "swapin": _swapin,
    "merge": _merge,
    "scan": _scan,
    "deferred-split": _deferred_split,
}
"""Every step; each returns the sentences that the runner prints under it."""
