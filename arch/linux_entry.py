"""What Linux reads from one page-table entry: its kind, flags and markers, and the numbering of swap types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, Flag, auto

from .errors import InputError

Release = tuple[int, int]
SWAP_TYPE_BITS = 5  # MAX_SWAPFILES_SHIFT


class EntryKind(Enum):
    """What an entry is to Linux."""

    NONE = "none"
    TABLE = "table"
    PRESENT = "present"
    PROT_NONE = "prot-none"  # PROT_NONE mapping or NUMA hint: present to Linux, not to the hardware
    INVALID = "invalidated"  # pmd_mkinvalid: present to Linux while a huge entry is being changed
    SWAP = "swap"
    MIGRATION_READ = "migration read"
    MIGRATION_READ_EXCLUSIVE = "migration read-exclusive"
    MIGRATION_WRITE = "migration write"
    HWPOISON = "hwpoison"
    DEVICE_PRIVATE_WRITE = "device-private write"
    DEVICE_PRIVATE_READ = "device-private read"
    DEVICE_EXCLUSIVE_WRITE = "device-exclusive write"
    DEVICE_EXCLUSIVE_READ = "device-exclusive read"
    DEVICE_EXCLUSIVE = "device-exclusive"
    MARKER = "marker"
    SWAPIN_ERROR = "swapin-error"
    UNKNOWN = "unknown"  # set bits that no encoding of this generation has


_K = EntryKind
MAPPED_KINDS = frozenset({_K.PRESENT, _K.PROT_NONE, _K.INVALID})
MIGRATION_KINDS = frozenset({_K.MIGRATION_READ, _K.MIGRATION_READ_EXCLUSIVE, _K.MIGRATION_WRITE})
DEVICE_PRIVATE_KINDS = frozenset({_K.DEVICE_PRIVATE_READ, _K.DEVICE_PRIVATE_WRITE})
DEVICE_EXCLUSIVE_KINDS = frozenset({_K.DEVICE_EXCLUSIVE, _K.DEVICE_EXCLUSIVE_READ, _K.DEVICE_EXCLUSIVE_WRITE})
PFN_KINDS = MIGRATION_KINDS | DEVICE_PRIVATE_KINDS | DEVICE_EXCLUSIVE_KINDS | {_K.HWPOISON}


class LinuxFlags(Flag):
    """What Linux reads from an entry besides its kind; EXCLUSIVE stands in swap entries alone."""

    NONE = 0
    WRITE = auto()
    USER = auto()
    EXEC = auto()
    YOUNG = auto()
    DIRTY = auto()
    SOFT_DIRTY = auto()
    UFFD_WP = auto()
    EXCLUSIVE = auto()
    SPECIAL = auto()
    DEVMAP = auto()
    GLOBAL = auto()
    CONTIG = auto()
    SHADOW_STACK = auto()
    NOPTISHADOW = auto()

    def text(self) -> str:
        """The flags' names in a fixed order, `write user soft-dirty`."""
        return " ".join((f.name or "").lower().replace("_", "-") for f in LinuxFlags if f in self and f.value)


class Marker(Flag):
    """The bits in a marker entry's offset (include/linux/swapops.h): UFFD_WP 5.19, POISONED 6.2, GUARD 6.13."""

    UFFD_WP = 1
    POISONED = 2
    GUARD = 4


@dataclass(frozen=True, slots=True)
class LinuxEntry:
    """One entry as Linux reads it.

    `present` is pte_present()/pmd_present(): true for PROT_NONE too. `pfn` (in pages of the base size) is set where
    the entry names a page or a table, `type` and `offset` where it is in the swap format. `stray` holds set bits that
    the encoding leaves unused. `note` tells where the reading depends on the kernel's configuration.
    """

    kind: EntryKind
    level: int
    raw: int
    present: bool = False
    pfn: int | None = None
    type: int | None = None
    offset: int | None = None
    flags: LinuxFlags = LinuxFlags.NONE
    stray: int = 0
    note: str = ""

    @property
    def marker(self) -> Marker:
        """The marker bits; empty where the entry is no marker."""
        return Marker((self.offset or 0) & 7) if self.kind is EntryKind.MARKER else Marker(0)

    @property
    def pagemap_frame(self) -> int | None:
        """Bits 54:0 of this entry's /proc/PID/pagemap word: the PFN, or the swap type | offset << 5; None for none.

        Of an entry that holds a PFN the offset shows the PFN alone (fs/proc/task_mmu.c, swp_offset_pfn).
        """
        if self.present:
            return self.pfn
        if self.type is None or self.offset is None:
            return None
        return self.type | (self.offset if self.pfn is None else self.pfn) << SWAP_TYPE_BITS

    def text(self) -> str:
        """For people: `swap type 3 offset 0x1234 exclusive`, `migration write pfn 0x12345 dirty`, `marker guard`."""
        words = [self.kind.value]
        if self.kind is EntryKind.SWAP:
            words.append(f"type {self.type} offset {self.offset:#x}")
        elif self.kind is EntryKind.MARKER:
            names = [(m.name or "").lower().replace("_", "-") for m in Marker if m in self.marker]
            words.append("|".join(names) or f"{self.offset:#x}")
        elif self.pfn is not None:
            words.append(f"pfn {self.pfn:#x}")
        words += [self.flags.text()] if self.flags else []
        words += [f"+{self.stray:#x}"] if self.stray else []
        words += [f"({self.note})"] if self.note else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class SwapTypes:
    """Which swap type number means what, in one release and configuration (include/linux/swap.h).

    >>> SwapTypes.of((7, 3), device_private=True, marker=True).kinds[27].value
    'migration write'
    >>> SwapTypes.of((6, 1), device_private=True, marker=True).max_swapfiles
    22
    """

    max_swapfiles: int
    kinds: dict[int, EntryKind] = field(hash=False)

    @classmethod
    def of(cls, release: Release, *, device_private: bool, marker: bool) -> SwapTypes:
        """The numbering: swap files, then hwpoison, migration, device and marker types up to 31.

        Device-exclusive entries lost their read/write pair in 6.15 (commit c25465eb7630). Exclusive migration entries
        came in 5.19 (6c287605fd56). 5.19 to 6.1 end with a type for swap-in errors (9f186f9e5fa9, 15520a3f0469).
        """
        special = [_K.HWPOISON, _K.MIGRATION_READ]
        special += [_K.MIGRATION_READ_EXCLUSIVE] if release >= (5, 19) else []
        special += [_K.MIGRATION_WRITE]
        if device_private:
            special += [_K.DEVICE_PRIVATE_WRITE, _K.DEVICE_PRIVATE_READ]
            if release >= (6, 15):
                special += [_K.DEVICE_EXCLUSIVE]
            elif release >= (5, 14):
                special += [_K.DEVICE_EXCLUSIVE_WRITE, _K.DEVICE_EXCLUSIVE_READ]
        special += [_K.MARKER] if marker else []
        special += [_K.SWAPIN_ERROR] if (5, 19) <= release < (6, 2) else []
        first = (1 << SWAP_TYPE_BITS) - len(special)
        return cls(first, dict(enumerate(special, first)))

    def number(self, kind: EntryKind) -> int:
        """The type number of a kind; InputError where this kernel has none."""
        for number, known in self.kinds.items():
            if known is kind:
                return number
        raise InputError(f"this kernel generation has no {kind.value} entries", field="swap type", value=kind.value)

    def kind(self, number: int) -> EntryKind:
        """What a type number means; below `max_swapfiles` a swap file."""
        return self.kinds.get(number, EntryKind.SWAP)
