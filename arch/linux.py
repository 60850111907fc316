"""Linux's reading of a page-table entry: software bits, non-present encodings and level names, by kernel generation.

Each architecture declares its layouts in `arch/<arch>/linux.py`; `linux_entry` holds what an entry is read as; what
both share is here: the shape of the tables, the rule which release means which generation, and `linux_for`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import InputError
from .layout import Layout
from .linux_entry import (
    DEVICE_EXCLUSIVE_KINDS,
    DEVICE_PRIVATE_KINDS,
    MAPPED_KINDS,
    MIGRATION_KINDS,
    PFN_KINDS,
    EntryKind,
    LinuxEntry,
    LinuxFlags,
    Marker,
    Release,
    SwapTypes,
)

__all__ = [
    "DEVICE_EXCLUSIVE_KINDS",
    "DEVICE_PRIVATE_KINDS",
    "MAPPED_KINDS",
    "MIGRATION_KINDS",
    "PFN_KINDS",
    "EntryKind",
    "Linux",
    "LinuxEntry",
    "LinuxFlags",
    "Marker",
    "Paging",
    "Release",
    "SwapTypes",
    "linux_for",
    "linux_level_names",
    "parse_release",
]

NEWEST: Release = (7, 3)  # the newest release whose encodings were compared with a running kernel
OLDEST: Release = (4, 19)  # the oldest generation declared: PFN inversion on x86 (L1TF) is in place


class LevelLike(Protocol):
    """What is read of a regime's level (mmu.walk.Level)."""

    @property
    def number(self) -> int: ...

    @property
    def shift(self) -> int: ...


class _TreeLike(Protocol):
    @property
    def levels(self) -> Sequence[LevelLike]: ...


class _EntryLike(Protocol):
    @property
    def layout(self) -> Layout: ...


class RegimeLike(Protocol):
    """What is read of a translation regime (mmu.regime.Regime)."""

    @property
    def trees(self) -> Sequence[_TreeLike]: ...

    def classify(self, level: Any, raw: int, /) -> _EntryLike: ...


@dataclass(frozen=True, slots=True)
class Paging:
    """The shape of a process's tables: page shift, level numbers from the root down, and 52-bit output addresses.

    >>> Paging(12, (4, 3, 2, 1)).depth(2)
    1
    """

    page_shift: int
    levels: tuple[int, ...]
    wide: bool = False

    @classmethod
    def of(cls, regime: RegimeLike) -> Paging:
        """The shape of a regime's first tree (the one with user addresses); InputError where nothing translates."""
        if not regime.trees:
            raise InputError("translation is off, so there are no page tables to read", field="regime")
        levels = regime.trees[0].levels
        leaf = regime.classify(levels[-1], 0b11).layout  # present on x86, a page on arm64
        wide = any(name in leaf for name in ("OA_51_48", "OA_51_50"))
        return cls(levels[-1].shift, tuple(level.number for level in levels), wide)

    def depth(self, level: int) -> int:
        """How many levels lie between `level` and the last-level table (0: PTE, 1: PMD, 2: PUD ...)."""
        if level not in self.levels:
            raise InputError("these tables have no such level", field="level", value=level)
        return len(self.levels) - 1 - self.levels.index(level)

    def nr_pages(self, level: int) -> int:
        """How many base pages a leaf at `level` maps."""
        return 1 << self.depth(level) * (self.page_shift - 3)


LINUX_LEVELS = ("PTE", "PMD", "PUD", "P4D", "PGD")


def linux_level_names(depth: int, count: int) -> tuple[str, ...]:
    """Linux's names of a level `depth` above the last of `count` levels; the root also answers for folded ones.

    >>> linux_level_names(3, 4), linux_level_names(3, 5), linux_level_names(1, 2)
    (('PGD', 'P4D'), ('P4D',), ('PGD', 'P4D', 'PUD', 'PMD'))
    """
    if depth == count - 1:
        return tuple(reversed(LINUX_LEVELS[depth:]))
    return (LINUX_LEVELS[depth],)


def parse_release(release: str | None) -> tuple[Release, str]:
    """The (major, minor) of a kernel release and, where something had to be chosen, a sentence that says what.

    >>> parse_release("6.1.0-56-arm64")
    ((6, 1), '')
    >>> parse_release(None)
    ((7, 3), 'kernel release unknown: entries are read as by Linux 7.3')
    """
    match = re.match(r"(?:Linux version )?(\d{1,4})\.(\d{1,4})", release) if release else None
    if match is None:
        name = "unknown" if not release else f"{release!r} not understood"
        return NEWEST, f"kernel release {name}: entries are read as by Linux {NEWEST[0]}.{NEWEST[1]}"
    found = int(match[1]), int(match[2])
    if found < OLDEST:
        return OLDEST, f"kernel {found[0]}.{found[1]}: entries are read as by Linux {OLDEST[0]}.{OLDEST[1]}"
    return found, ""


_SWAP_FLAGS = {name: LinuxFlags[name] for name in ("SOFT_DIRTY", "UFFD_WP", "EXCLUSIVE")}


class Linux(ABC):
    """Linux's use of one architecture's entries in one kernel generation; made by `linux_for`.

    Entries are plain integers of 64 bits. `notes` says what was chosen where the source did not tell.
    """

    arch: str
    #: the release that brought userfaultfd write protection to this architecture
    uffd_wp_since: Release
    #: the layout of a present leaf's software bits, and of an entry in the swap format
    software: Layout
    swap_format: Layout

    def __init__(self, release: Release, paging: Paging, device_private: bool | None, notes: tuple[str, ...]) -> None:
        self.release, self.paging = release, paging
        marker = release >= (6, 2) or (release >= (5, 19) and self.uffd_wp_since <= release)
        assumed = True if device_private is None else device_private
        self.types = SwapTypes.of(release, device_private=assumed, marker=marker)
        other = SwapTypes.of(release, device_private=not assumed, marker=marker)
        self._other_types = other if device_private is None else self.types
        self.notes = notes
        self.pfn_bits = self.physmem_bits - paging.page_shift  # SWP_PFN_BITS

    @property
    @abstractmethod
    def physmem_bits(self) -> int:
        """MAX_PHYSMEM_BITS: how many bits a physical address has at most."""

    @abstractmethod
    def _present(self, level: int, raw: int) -> LinuxEntry | None:
        """The entry where Linux calls it none, a table or present; None where it is in the swap format."""

    @abstractmethod
    def page(self, level: int, pfn: int, flags: LinuxFlags, *, prot_none: bool = False) -> int:
        """A present leaf of `pfn` (base pages), or with `prot_none` one that the hardware refuses."""

    @abstractmethod
    def table(self, level: int, pa: int) -> int:
        """The entry at `level` that points at the table at `pa`, with the rights Linux gives user tables."""

    @abstractmethod
    def set(self, level: int, raw: int, flags: LinuxFlags) -> int:
        """`raw` with flags set, as pte_mkwrite, pte_mkdirty, pte_mkyoung ... would."""

    @abstractmethod
    def clear(self, level: int, raw: int, flags: LinuxFlags) -> int:
        """`raw` with flags cleared, as pte_wrprotect, pte_mkclean, pte_mkold ... would."""

    @property
    @abstractmethod
    def wrprotect(self) -> tuple[int, int, int, int, int]:
        """pte_wrprotect as masks for bulk work: the write bit, and how a writable entry stays dirty without it.

        Where `entry & test == want`, `clear` goes and `set` comes: (write, test, want, clear, set).
        """

    @abstractmethod
    def modify(self, level: int, raw: int, flags: LinuxFlags, *, prot_none: bool = False) -> int:
        """pte_modify: `raw` with the rights (WRITE, USER, EXEC) of `flags`; the page and all else stays."""

    @abstractmethod
    def invalidate(self, level: int, raw: int) -> int:
        """pmd_mkinvalid: a huge entry that the hardware refuses and Linux still calls present."""

    @abstractmethod
    def _pack(self, type: int, offset: int) -> int:
        """An entry in the swap format."""

    @abstractmethod
    def _unpack(self, raw: int) -> tuple[int, int]:
        """Type and offset of an entry in the swap format."""

    def level_names(self, level: int) -> tuple[str, ...]:
        """Linux's names of a level, those of folded levels included: ('PGD', 'P4D') for a 4-level root."""
        return linux_level_names(self.paging.depth(level), len(self.paging.levels))

    def decode(self, level: int, raw: int) -> LinuxEntry:
        """What Linux makes of `raw` at the manual's `level` (x86 5..1, arm64 -1..3).

        >>> linux = linux_for("x86_64", "7.3.4", Paging(12, (4, 3, 2, 1)))
        >>> linux.decode(1, 0x1fffffffffdb9608).text()
        'swap type 3 offset 0x1234 exclusive'
        """
        self.paging.depth(level)
        return self._present(level, raw) or self._non_present(level, raw)

    def _non_present(self, level: int, raw: int) -> LinuxEntry:
        number, offset = self._unpack(raw)
        kind, pfn, stray, note = self.types.kind(number), None, raw & self._unused, ""
        flags = self._swap_flags(raw)
        if kind in PFN_KINDS:
            pfn, rest = offset & (1 << self.pfn_bits) - 1, offset >> self.pfn_bits
            if kind in MIGRATION_KINDS and self.release >= (6, 1):
                flags |= LinuxFlags.YOUNG if rest & 1 else LinuxFlags.NONE
                flags |= LinuxFlags.DIRTY if rest & 2 else LinuxFlags.NONE
        if self._other_types.kind(number) is not kind:
            note = f"{self._other_types.kind(number).value} if this kernel has no CONFIG_DEVICE_PRIVATE"
        if stray:
            kind = EntryKind.UNKNOWN
        return LinuxEntry(kind, level, raw, False, pfn, number, offset, flags, stray, note)

    @property
    def _unused(self) -> int:
        """The bits that the swap format leaves zero."""
        return self.swap_format.role_mask("RES0")

    def _swap_flags(self, raw: int) -> LinuxFlags:
        flags = LinuxFlags.NONE
        for name, flag in _SWAP_FLAGS.items():
            if name in self.swap_format and self.swap_format[name].get(raw):
                flags |= flag
        return flags

    def _swap_flag_mask(self, flags: LinuxFlags) -> int:
        """The bits of an entry in the swap format that say `flags`; InputError where the format has no such bit."""
        mask = 0
        for flag in flags:
            name = flag.name or ""
            if name not in _SWAP_FLAGS or name not in self.swap_format:
                text = f"a non-present entry of this kernel generation has no {flag.text()} bit"
                raise InputError(text, field="flags", value=flag.text())
            mask |= self.swap_format.mask(name)
        return mask

    def _non_present_entry(self, number: int, offset: int, flags: LinuxFlags) -> int:
        if not 0 <= offset < 1 << self.swap_format["OFFSET"].width:
            raise InputError("the offset does not fit a swap entry", field="offset", value=offset)
        return self._pack(number, offset) | self._swap_flag_mask(flags)

    def swap(self, type: int, offset: int, flags: LinuxFlags = LinuxFlags.NONE) -> int:
        """A swap entry: `type` numbers the swap file, `offset` the slot in pages.

        >>> hex(linux_for("arm64", "7.3", Paging(12, (0, 1, 2, 3))).swap(3, 0x1234, LinuxFlags.EXCLUSIVE))
        '0x12340c4'
        """
        if not 0 <= type < self.types.max_swapfiles:
            raise InputError("no swap file can have this number", field="type", value=type)
        return self._non_present_entry(type, offset, flags)

    def pfn_entry(self, kind: EntryKind, pfn: int, flags: LinuxFlags = LinuxFlags.NONE) -> int:
        """A migration, hwpoison, device-private or device-exclusive entry; migration keeps YOUNG, DIRTY since 6.1."""
        if kind not in PFN_KINDS:
            raise InputError("entries of this kind hold no PFN", field="kind", value=kind.value)
        if not 0 <= pfn < 1 << self.pfn_bits:
            raise InputError(f"the PFN has more than {self.pfn_bits} bits", field="pfn", value=pfn)
        young, dirty, kept = LinuxFlags.YOUNG, LinuxFlags.DIRTY, LinuxFlags.NONE
        if kind in MIGRATION_KINDS and self.release >= (6, 1):
            kept = flags & (young | dirty)
        rest = (1 if young in kept else 0) | (2 if dirty in kept else 0)
        return self._non_present_entry(self.types.number(kind), pfn | rest << self.pfn_bits, flags & ~kept)

    def marker(self, marker: Marker, flags: LinuxFlags = LinuxFlags.NONE) -> int:
        """A marker entry; InputError where the release does not know the marker."""
        since = {Marker.UFFD_WP: (5, 19), Marker.POISONED: (6, 2), Marker.GUARD: (6, 13)}
        for bit in marker:
            if self.release < since[bit]:
                raise InputError(f"Linux {self.release[0]}.{self.release[1]} has no such marker", value=bit.name)
        return self._non_present_entry(self.types.number(EntryKind.MARKER), marker.value, flags)


def linux_for(
    arch: str, release: str | None, regime: RegimeLike | Paging, *, device_private: bool | None = None
) -> Linux:
    """Linux's reading of entries for an architecture ('x86_64', 'arm64'), a kernel release and a regime.

    `device_private` says whether the kernel has CONFIG_DEVICE_PRIVATE, which moves the swap types; None reads them as
    if it had and says in `LinuxEntry.note` where that matters. An unknown release is read as the newest known one and
    `notes` says so. InputError for an unknown architecture.

    >>> linux_for("arm64", "6.1.0-56-arm64", Paging(12, (0, 1, 2, 3))).decode(3, 0x460000043c00b82).text()
    'prot-none pfn 0x43c00'
    """
    paging = regime if isinstance(regime, Paging) else Paging.of(regime)
    found, note = parse_release(release)
    notes = (note,) if note else ()
    if arch == "x86_64":
        from .x86_64.linux import X86Linux

        return X86Linux(found, paging, device_private, notes)
    if arch == "arm64":
        from .arm64.linux import Arm64Linux

        return Arm64Linux(found, paging, device_private, notes)
    raise InputError("unknown architecture", field="arch", value=arch)
