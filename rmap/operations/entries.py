"""Entries that rmap does not count: swap and migration entries, written, copied and split."""

from __future__ import annotations

from ...arch.linux import MIGRATION_KINDS, EntryKind, LinuxFlags
from ...mmu.editor import Reason
from ..levels import Level
from ..space.process import Leaf, NonPresent, Process
from ..views.inputs import State

SOFTWARE = LinuxFlags.SOFT_DIRTY | LinuxFlags.UFFD_WP
"""What swap and migration entries keep in software bits."""
KEPT = LinuxFlags.YOUNG | LinuxFlags.DIRTY | SOFTWARE
"""What a migration entry keeps of a page's entry."""


def write_swap(process: Process, va: int, slot: int, flags: LinuxFlags, reason: Reason) -> None:
    """A swap entry at a page, in place of what stands there; the slot is counted once more.

    `flags` are EXCLUSIVE and those in SOFTWARE.
    """
    process.put_entry(va, process.linux.swap(0, slot, flags), reason)


def write_protect(process: Process, leaf: Leaf, reason: Reason) -> None:
    """pte_wrprotect, or the readable kind of a device-private entry; a device-exclusive one has no rights to lose."""
    if leaf.state is State.PRESENT:
        process.rewrite_leaf(leaf, set_=LinuxFlags.NONE, clear=LinuxFlags.WRITE, reason=reason)
    elif leaf.state is State.DEVICE_PRIVATE:
        flags = leaf.flags & ~LinuxFlags.WRITE
        process.install_device_private(leaf.va, leaf.folio, leaf.page, leaf.nr_pages, flags, reason)


def write_migration(process: Process, leaf: Leaf, *, exclusive: bool) -> None:
    """A migration entry in place of a leaf: writable, readable and exclusive, or readable; keeps accessed and dirty."""
    kind = EntryKind.MIGRATION_READ_EXCLUSIVE if exclusive else EntryKind.MIGRATION_READ
    if leaf.write:
        kind = EntryKind.MIGRATION_WRITE
    raw = process.linux.pfn_entry(kind, leaf.folio.pfn + leaf.page, leaf.flags & KEPT)
    process.unfold(leaf.va, leaf.va + leaf.nr_pages * process.page_size)
    process.put_entry(leaf.va, raw, Reason.MIGRATE, leaf.level)


def rewrite_migration(process: Process, other: NonPresent, kind: EntryKind, reason: Reason) -> None:
    """A migration entry of another kind for the same page."""
    assert other.entry.pfn is not None
    raw = process.linux.pfn_entry(kind, other.entry.pfn, other.entry.flags & KEPT)
    process.put_entry(other.va, raw, reason, other.level)


def split_migration(process: Process, other: NonPresent) -> None:
    """__split_huge_pmd of a migration entry: PTEs with the same kind for each page; rmap is not told."""
    if other.entry.kind not in MIGRATION_KINDS or other.level == Level.PTE:
        return
    assert other.entry.pfn is not None
    kind, pfn, kept = other.entry.kind, other.entry.pfn, other.entry.flags & KEPT
    step = process.system.levels.size(Level(other.level - 1))
    raws = [
        (other.va + page * process.page_size, process.linux.pfn_entry(kind, pfn + page, kept))
        for page in range(0, process.system.levels.size(other.level), step)
    ]
    process.put_table(other.va, other.level, raws, Reason.SPLIT)


def copy_nonpresent(src: Process, dst: Process, start: int, end: int) -> None:
    """copy_nonpresent_pte: swap entries count their slot once more; nothing stays writable or exclusive in either."""
    for other in src.nonpresent(start, end):
        kind = other.entry.kind
        if kind is EntryKind.SWAP:
            assert other.entry.offset is not None
            flags = other.entry.flags & ~LinuxFlags.EXCLUSIVE
            write_swap(src, other.va, other.entry.offset, flags, Reason.FORK)
            write_swap(dst, other.va, other.entry.offset, flags & ~LinuxFlags.UFFD_WP, Reason.FORK)
        elif kind in MIGRATION_KINDS:
            rewrite_migration(src, other, EntryKind.MIGRATION_READ, Reason.FORK)
            rewrite_migration(dst, other, EntryKind.MIGRATION_READ, Reason.FORK)
        else:  # zero pages, markers, hwpoison
            dst.put_entry(other.va, other.entry.raw, Reason.FORK, other.level)
