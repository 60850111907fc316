"""Entries of four running kernels against what the same kernels said of them in /proc/PID/pagemap."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ptwalk.arch.linux import EntryKind, Linux, LinuxFlags, Marker, Paging, linux_for

DATA = json.loads((Path(__file__).parent.parent / "data/linux/entries.json").read_text())
FRAME = (1 << 55) - 1


def personality(case: dict) -> Linux:
    return linux_for(case["arch"], case["kernel"], Paging(case["page_shift"], tuple(case["levels"]), case["wide"]))


def rows(case: dict):
    for level, raw, offset, pagemap in case["entries"]:
        yield level, int(raw, 16), offset, int(pagemap, 16)


@pytest.mark.parametrize("case", DATA, ids=lambda c: f"{c['arch']}-{c['kernel']}")
def test_entries_read_as_the_kernel_read_them(case):
    """pagemap: bit 63 present, 62 swapped, 58 guard, 57 uffd-wp, frame in 54:0 (fs/proc/task_mmu.c)."""
    linux, kinds = personality(case), Counter()
    for level, raw, offset, pagemap in rows(case):
        entry = linux.decode(level, raw)
        kinds[entry.kind] += 1
        assert not entry.stray
        present, swapped = pagemap >> 63 & 1, pagemap >> 62 & 1
        if present:
            assert entry.present
            assert entry.pagemap_frame + offset == pagemap & FRAME, hex(raw)
            assert (LinuxFlags.UFFD_WP in entry.flags) == pagemap >> 57 & 1, hex(raw)
        elif swapped:
            assert not entry.present
            assert entry.pagemap_frame == pagemap & FRAME, hex(raw)
            uffd = LinuxFlags.UFFD_WP in entry.flags or Marker.UFFD_WP in entry.marker
            assert (uffd, Marker.GUARD in entry.marker) == (pagemap >> 57 & 1, pagemap >> 58 & 1), hex(raw)
        else:  # VM_PFNMAP: pagemap tells nothing of what is mapped
            assert entry.present
            assert pagemap & FRAME == 0
    assert kinds[EntryKind.PRESENT] > 40
    assert kinds[EntryKind.PROT_NONE] > 3
    assert kinds[EntryKind.UNKNOWN] == 0


@pytest.mark.parametrize("case", [c for c in DATA if c["arch"] == "x86_64"], ids=lambda c: c["kernel"])
def test_soft_dirty_is_never_read_where_the_kernel_read_clean(case):
    """Only hugetlb pages (which pagemap does not report as soft-dirty before 6.18) may have the bit unseen."""
    linux = personality(case)
    for level, raw, _, pagemap in rows(case):
        entry = linux.decode(level, raw)
        if LinuxFlags.SOFT_DIRTY in entry.flags and not pagemap >> 55 & 1:
            assert level == 2
            assert pagemap >> 63


@pytest.mark.parametrize("case", DATA, ids=lambda c: f"{c['arch']}-{c['kernel']}")
def test_encoding_again_gives_the_same_entry(case):
    """Only bits no flag speaks of may differ: memory type, protection key, and a redundant second dirty bit."""
    linux = personality(case)
    keep = {"x86_64": 0x78 << 56 | 0x18 | 1 << 58, "arm64": 0x7 << 2 | 1 << 55}[case["arch"]]
    for level, raw, _, _ in rows(case):
        entry = linux.decode(level, raw)
        if entry.kind in (EntryKind.PRESENT, EntryKind.PROT_NONE):
            again = linux.page(level, entry.pfn, entry.flags, prot_none=entry.kind is EntryKind.PROT_NONE)
            assert (again ^ raw) & ~keep == 0, f"{raw:#018x} {again:#018x}"
        elif entry.kind is EntryKind.SWAP:
            assert linux.swap(entry.type, entry.offset, entry.flags) == raw
        elif entry.kind is EntryKind.MARKER:
            assert linux.marker(entry.marker, entry.flags) == raw
        elif entry.pfn is not None:
            assert linux.pfn_entry(entry.kind, entry.pfn, entry.flags) == raw


def test_hwpoison_needs_the_right_numbering():
    """Three of the four kernels came without CONFIG_DEVICE_PRIVATE: their poisoned pages tell."""
    found = set()
    for case in DATA:
        for device_private in (False, True):
            paging = Paging(case["page_shift"], tuple(case["levels"]), case["wide"])
            linux = linux_for(case["arch"], case["kernel"], paging, device_private=device_private)
            for level, raw, _, _ in rows(case):
                if linux.decode(level, raw).kind is EntryKind.HWPOISON:
                    found.add((case["arch"], case["kernel"], device_private))
    assert found == {
        ("arm64", "6.1.0-56-arm64", False),
        ("arm64", "7.3.4+deb13-arm64", True),
        ("x86_64", "7.3.4", False),
    }
