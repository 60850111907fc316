"""What a view needs to know: a process's VMAs and page-table entries, and the folios behind the frames.

Emulated address spaces and processes adopted from a capture both satisfy `MappedProcess`; the views know neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..folio import Folio
from ..levels import Level


class State(Enum):
    """What Linux makes of a page-table entry that is not empty."""

    PRESENT = "present"  # PROT_NONE and present-but-invalid entries too
    SWAP = "swap"
    MIGRATION = "migration"
    DEVICE_PRIVATE = "device-private"
    DEVICE_EXCLUSIVE = "device-exclusive"
    HWPOISON = "hwpoison"
    MARKER = "marker"

    @property
    def has_pfn(self) -> bool:
        """is_pfn_swap_entry: a non-present entry that names a frame."""
        return self in (State.MIGRATION, State.DEVICE_PRIVATE, State.DEVICE_EXCLUSIVE, State.HWPOISON)


@dataclass(frozen=True, slots=True)
class PageEntry:
    """One entry that is not empty, as Linux reads it.

    `nr_pages` base pages at `va`; `pfn` is the first one's frame where the entry names one. `special` entries have no
    normal page (zero page, PFNMAP); `zero` tells the zero pages among them. `swap_type` and `swap_offset` are those of
    a non-present entry, markers included. `pmd_shared`: a hugetlb entry in a PMD table that several processes share.
    """

    va: int
    level: Level
    nr_pages: int
    state: State
    pfn: int = 0
    young: bool = False
    dirty: bool = False
    write: bool = False
    special: bool = False
    zero: bool = False
    soft_dirty: bool = False
    uffd_wp: bool = False
    swap_type: int = 0
    swap_offset: int = 0
    uffd_wp_marker: bool = False
    guard_marker: bool = False
    pmd_shared: bool = False

    @property
    def present(self) -> bool:
        """pte_present."""
        return self.state is State.PRESENT


class VmaFacts(Protocol):
    """What a view needs to know of one VMA.

    `vm_flags` are smaps' two letters (`rd`, `lo`, `sd` ...). `name` is the file's path as maps prints it, `[heap]`,
    `[stack]` ..., or empty. `page_size` is vma_kernel_pagesize in bytes, `mmu_page_size` vma_mmu_pagesize, `policy`
    what numa_maps prints, `pkey` the protection key, None where the architecture has none. `swapped_shmem_pages` is
    shmem_swap_usage: pages of the mapped part of a shmem file that are in swap, which no page table tells. `wp_async`:
    registered with userfaultfd for asynchronous write-protection with markers.
    """

    start: int
    end: int
    vm_flags: Collection[str]
    name: str
    offset: int
    device: str
    inode: int
    page_size: int
    mmu_page_size: int
    policy: str
    pkey: int | None
    swapped_shmem_pages: int
    thp_eligible: bool
    wp_async: bool


@dataclass(slots=True)
class Vma:
    """A plain VmaFacts.

    >>> Vma(0x1000, 0x3000, ("rd", "wr", "mr")).prot
    'rw-p'
    """

    start: int
    end: int
    vm_flags: Collection[str]
    name: str = ""
    offset: int = 0
    device: str = "00:00"
    inode: int = 0
    page_size: int = 4096
    mmu_page_size: int = 4096
    policy: str = "default"
    pkey: int | None = None
    swapped_shmem_pages: int = 0
    thp_eligible: bool = False
    wp_async: bool = False

    @property
    def prot(self) -> str:
        """The four letters of maps."""
        return prot(self)


def prot(vma: VmaFacts) -> str:
    """maps' four letters of a VMA, such as `rw-p`."""
    letters = (("rd", "r", "-"), ("wr", "w", "-"), ("ex", "x", "-"), ("sh", "s", "p"))
    return "".join(yes if flag in vma.vm_flags else no for flag, yes, no in letters)


def is_hugetlb(vma: VmaFacts) -> bool:
    """is_vm_hugetlb_page: VM_HUGETLB, `ht` in smaps."""
    return "ht" in vma.vm_flags


def is_file(vma: VmaFacts) -> bool:
    """Whether a file is mapped: names in brackets and unnamed areas have no inode."""
    return vma.inode != 0 or vma.name.startswith("/")


class MappedProcess(Protocol):
    """One process as the views see it."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def page_size(self) -> int:
        """Bytes of a base page."""
        ...

    def vmas(self) -> Collection[VmaFacts]:
        """The VMAs in ascending order."""
        ...

    def entries(self, start: int, end: int) -> Iterator[PageEntry]:
        """The entries in a range that are not empty, ascending; tables and holes are passed over.

        In a hugetlb VMA one entry stands for one huge page, however many table entries hold it.
        """
        ...

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that a table of PTEs covers, ascending, as start and end addresses."""
        ...


class Frames(Protocol):
    """The folios by frame."""

    def folio(self, pfn: int) -> Folio | None:
        """The folio that holds the frame; None for frames without a normal page (zero pages, no struct page)."""
        ...

    def node(self, pfn: int) -> int:
        """The NUMA node of the frame."""
        ...

    def is_reserved(self, pfn: int) -> bool:
        """PageReserved: the kernel image, firmware."""
        ...

    def swap_count(self, swap_type: int, swap_offset: int) -> int:
        """How many entries refer to a swap slot."""
        ...
