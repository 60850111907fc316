"""Non-present encodings, software bits and pte operations, against tables worked out from the kernel's headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptwalk.arch.arm64 import linux as arm64_linux
from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import (
    MIGRATION_KINDS,
    PFN_KINDS,
    EntryKind,
    LinuxFlags,
    Marker,
    Paging,
    SwapTypes,
    linux_for,
)
from ptwalk.arch.x86_64 import linux as x86_linux
from ptwalk.arch.x86_64.linux import kpti_roots

F, K = LinuxFlags, EntryKind
X4, X5 = Paging(12, (4, 3, 2, 1)), Paging(12, (5, 4, 3, 2, 1))
A48, A52 = Paging(12, (0, 1, 2, 3)), Paging(12, (-1, 0, 1, 2, 3), wide=True)
RW = F.WRITE | F.USER | F.YOUNG | F.DIRTY
AD = F.YOUNG | F.DIRTY

# Numbers worked out from include/linux/swap.h, swapops.h and the two pgtable.h: (maker, x86-64, arm64), release 7.3
VECTORS = [
    (lambda x: x.swap(3, 0x1234), 0x1FFFFFFFFFDB9600, 0x12340C0),
    (lambda x: x.swap(3, 0x1234, F.EXCLUSIVE), 0x1FFFFFFFFFDB9608, 0x12340C4),
    (lambda x: x.swap(3, 0x1234, F.UFFD_WP), 0x1FFFFFFFFFDB9604, 0x12340C8),
    (lambda x: x.swap(3, 0x1234, F.SOFT_DIRTY), 0x1FFFFFFFFFDB9602, None),
    (lambda x: x.pfn_entry(K.MIGRATION_READ, 0x12345), 0xCFFFFFFFFDB97400, 0x12345640),
    (lambda x: x.pfn_entry(K.MIGRATION_READ_EXCLUSIVE, 0x12345), 0xD7FFFFFFFDB97400, 0x12345680),
    (lambda x: x.pfn_entry(K.HWPOISON, 0x12345), 0xC7FFFFFFFDB97400, 0x12345600),
    (lambda x: x.pfn_entry(K.DEVICE_PRIVATE_WRITE, 0x12345), 0xE7FFFFFFFDB97400, 0x12345700),
    (lambda x: x.pfn_entry(K.DEVICE_EXCLUSIVE, 0x12345), 0xF7FFFFFFFDB97400, 0x12345780),
    (lambda x: x.marker(Marker.UFFD_WP), 0xFFFFFFFFFFFFFC00, 0x17C0),
    (lambda x: x.marker(Marker.POISONED), 0xFFFFFFFFFFFFFA00, 0x27C0),
    (lambda x: x.marker(Marker.GUARD), 0xFFFFFFFFFFFFF600, 0x47C0),
]
MIGRATION_AD = [
    ("x86_64", X5, 0xDFF9FFFFFDB97400),
    ("x86_64", X4, 0xDFFFE7FFFDB97400),
    ("arm64", A52, 0x300000123456C0),
    ("arm64", A48, 0x30000123456C0),
]


@pytest.mark.parametrize(("make", "x86", "arm"), VECTORS)
def test_vectors(make, x86, arm):
    assert make(linux_for("x86_64", "7.3.4", X4)) == x86
    if arm is None:
        with pytest.raises(InputError, match="has no soft-dirty bit"):
            make(linux_for("arm64", "7.3.4", A48))
    else:
        assert make(linux_for("arm64", "7.3.4", A48)) == arm


@pytest.mark.parametrize(("arch", "paging", "raw"), MIGRATION_AD)
def test_migration_keeps_accessed_and_dirty_above_the_pfn(arch, paging, raw):
    linux = linux_for(arch, "7.3", paging)
    assert linux.pfn_entry(K.MIGRATION_WRITE, 0x12345, AD) == raw
    entry = linux.decode(linux.paging.levels[-1], raw)
    assert (entry.kind, entry.pfn, entry.flags) == (K.MIGRATION_WRITE, 0x12345, AD)
    assert entry.pagemap_frame == 27 | 0x12345 << 5


NUMBERING = [
    # release, device_private, marker, swap files, hwpoison, migration write, device-exclusive(s), marker type
    ((7, 3), True, True, 24, 24, 27, [30], 31),
    ((6, 15), False, True, 27, 27, 30, [], 31),
    ((6, 14), True, True, 23, 23, 26, [29, 30], 31),
    ((6, 1), True, True, 22, 22, 25, [28, 29], 30),
    ((6, 1), False, False, 27, 27, 30, [], None),
    ((5, 15), True, False, 25, 25, 27, [30, 31], None),
]


@pytest.mark.parametrize(("release", "device", "marker", "files", "poison", "write", "exclusive", "last"), NUMBERING)
def test_swap_type_numbering(release, device, marker, files, poison, write, exclusive, last):
    types = SwapTypes.of(release, device_private=device, marker=marker)
    assert types.max_swapfiles == files
    assert types.number(K.HWPOISON) == poison
    assert types.number(K.MIGRATION_WRITE) == write
    kinds = (K.DEVICE_EXCLUSIVE, K.DEVICE_EXCLUSIVE_WRITE, K.DEVICE_EXCLUSIVE_READ)
    assert [n for n, k in sorted(types.kinds.items()) if k in kinds] == exclusive
    if last is None:
        with pytest.raises(InputError):
            types.number(K.MARKER)
    else:
        assert types.number(K.MARKER) == last


def test_arm64_formats_by_generation():
    old, middle, new = (linux_for("arm64", r, A48) for r in ("5.10", "6.1", "6.12"))
    assert [x.swap(3, 0x1234) for x in (old, middle, new)] == [0x12340C, 0x123418, 0x12340C0]
    none = [linux.page(3, 0x80, F.USER, prot_none=True) for linux in (middle, new)]
    assert [raw >> 58 & 1 for raw in none] == [1, 0]
    assert [raw & 1 for raw in none] == [0, 0]
    assert new.decode(3, none[1]).kind is K.PROT_NONE
    assert middle.decode(3, none[0]).kind is K.PROT_NONE


def test_x86_inverts_the_pfn_where_p_is_0():
    linux = linux_for("x86_64", "6.1", X4)
    raw = linux.page(1, 0x11C00, F.SOFT_DIRTY, prot_none=True)
    assert raw == 0xFFFFFEE3FF900  # as a 6.1 kernel wrote it
    assert linux.decode(1, raw).pfn == 0x11C00
    assert linux.modify(1, raw, F.USER | F.WRITE | F.EXEC) == 0x11C00807
    huge = linux.page(2, 0x11C00, RW)
    assert linux.decode(2, linux.invalidate(2, huge)).text().startswith("invalidated pfn 0x11c00")


def test_saved_dirty_since_6_6():
    before, after = linux_for("x86_64", "6.1", X4), linux_for("x86_64", "7.3", X4)
    raw = before.page(1, 0x10, RW)
    assert before.clear(1, raw, F.WRITE) == 0x8000000000010065
    assert after.clear(1, raw, F.WRITE) == 0x8400000000010025
    assert after.set(1, after.clear(1, raw, F.WRITE), F.WRITE) == raw
    assert F.DIRTY in after.decode(1, after.clear(1, raw, F.WRITE)).flags
    assert F.SHADOW_STACK in after.decode(1, 0x8000000000010065).flags


DIRTY_ALGEBRA = [  # (dirty, write) -> RDONLY, WRITE (DBM), DIRTY (55): arch/arm64/include/asm/pgtable.h
    (False, False, (1, 0, 0)),
    (False, True, (1, 1, 0)),
    (True, False, (1, 0, 1)),
]


@pytest.mark.parametrize(("dirty", "write", "bits"), DIRTY_ALGEBRA)
def test_arm64_dirty_algebra(dirty, write, bits):
    flags = F.USER | F.YOUNG | (F.DIRTY if dirty else F.NONE) | (F.WRITE if write else F.NONE)
    raw = linux_for("arm64", "7.3", A48).page(3, 0x80, flags)
    assert (raw >> 7 & 1, raw >> 51 & 1, raw >> 55 & 1) == bits


def test_arm64_write_protection_moves_hardware_dirtiness():
    linux = linux_for("arm64", "7.3", A48)
    clean = linux.page(3, 0x80, F.USER | F.YOUNG | F.WRITE)
    written = clean & ~(1 << 7)  # what the hardware does on a write (DBM)
    assert F.DIRTY in linux.decode(3, written).flags
    protected = linux.clear(3, written, F.WRITE)
    assert (protected >> 7 & 1, protected >> 51 & 1, protected >> 55 & 1) == (1, 0, 1)
    assert linux.set(3, protected, F.WRITE) >> 7 & 1 == 0
    assert linux.set(3, clean & ~(1 << 51), F.WRITE) >> 7 & 1 == 1, "6.18: a clean page stays clean"
    assert linux_for("arm64", "6.1", A48).set(3, clean & ~(1 << 51), F.WRITE) >> 7 & 1 == 0


def test_level_names_fold():
    names = {level: linux_for("x86_64", "7.3", X4).level_names(level) for level in X4.levels}
    assert names == {4: ("PGD", "P4D"), 3: ("PUD",), 2: ("PMD",), 1: ("PTE",)}
    assert linux_for("arm64", "7.3", Paging(16, (2, 3))).level_names(2) == ("PGD", "P4D", "PUD", "PMD")
    assert linux_for("arm64", "7.3", A52).level_names(0) == ("P4D",)


def test_choices_are_told():
    assert linux_for("x86_64", None, X4).notes == ("kernel release unknown: entries are read as by Linux 7.3",)
    assert linux_for("x86_64", "2.6.32", X4).notes[0].startswith("kernel 2.6")
    assert linux_for("x86_64", "6.1.0", X4).notes == ()
    raw = linux_for("x86_64", "7.3", X4, device_private=False).pfn_entry(K.HWPOISON, 1)
    assert "hwpoison if this kernel has no" in linux_for("x86_64", "7.3", X4).decode(1, raw).text()
    assert linux_for("x86_64", "7.3", X4, device_private=True).decode(1, raw).note == ""


def test_refusals():
    linux = linux_for("x86_64", "6.1", X4)
    for call in (
        lambda: linux.swap(31, 0),
        lambda: linux.swap(0, 1 << 50),
        lambda: linux.marker(Marker.GUARD),
        lambda: linux.pfn_entry(K.SWAP, 1),
        lambda: linux.pfn_entry(K.HWPOISON, 1 << 34),
        lambda: linux.page(4, 1, F.NONE),
        lambda: linux.page(2, 1, F.NONE),
        lambda: linux.table(2, 1),
        lambda: linux.decode(0, 1),
        lambda: linux.invalidate(1, 1),
        lambda: linux_for("m68k", "6.1", X4),
        lambda: linux_for("arm64", "6.1", A48).page(0, 0, F.NONE),
        lambda: linux_for("arm64", "6.1", A48).table(0, 1 << 48),
    ):
        with pytest.raises(InputError):
            call()


def test_kpti_pair():
    assert kpti_roots(0x1234000) == kpti_roots(0x1235000) == (0x1234000, 0x1235000)


LINUXES = [
    linux_for(arch, release, paging)
    for arch, pagings in (
        ("x86_64", (X4, X5)),
        ("arm64", (A48, A52, Paging(14, (0, 1, 2, 3), True), Paging(16, (1, 2, 3)))),
    )
    for release in ("4.19", "5.15", "5.19", "6.1", "6.6", "6.10", "6.14", "6.17", "7.3")
    for paging in pagings
]


@given(st.sampled_from(LINUXES), st.integers(0, 3), st.integers(0, (1 << 64) - 1))
def test_any_value_is_read(linux, depth, raw):
    level = linux.paging.levels[-1 - min(depth, len(linux.paging.levels) - 1)]
    entry = linux.decode(level, raw)
    assert entry.raw == raw
    assert entry.text()
    assert entry.present or entry.kind is K.NONE or entry.stray or entry.type is not None


@given(st.sampled_from(LINUXES), st.data())
def test_non_present_entries_come_back(linux, data):
    kinds = [k for k in linux.types.kinds.values() if k in PFN_KINDS]
    kind = data.draw(st.sampled_from(kinds))
    pfn = data.draw(st.integers(0, (1 << min(linux.pfn_bits, 34)) - 1))
    flags = data.draw(st.sampled_from([F.NONE, F.YOUNG, F.DIRTY, AD])) if kind in MIGRATION_KINDS else F.NONE
    if linux.release < (6, 1):
        flags = F.NONE
    level = linux.paging.levels[-1]
    entry = linux.decode(level, linux.pfn_entry(kind, pfn, flags))
    assert (entry.kind, entry.pfn, entry.flags, entry.stray) == (kind, pfn, flags, 0)
    number, offset = data.draw(st.integers(0, linux.types.max_swapfiles - 1)), data.draw(st.integers(1, (1 << 50) - 1))
    entry = linux.decode(level, linux.swap(number, offset))
    assert (entry.kind, entry.type, entry.offset) == (K.SWAP, number, offset)


SETTABLE = F.WRITE | F.USER | F.EXEC | F.YOUNG | F.DIRTY | F.SPECIAL


@given(st.sampled_from(LINUXES), st.integers(0, 1), st.integers(1, 1 << 20), st.data())
def test_present_leaves_come_back_and_operations_do_what_they_say(linux, depth, unit, data):
    level = linux.paging.levels[-1 - depth]
    pfn = unit * linux.paging.nr_pages(level)
    flags = F(data.draw(st.integers(0, SETTABLE.value))) & SETTABLE | F.USER
    raw = linux.page(level, pfn, flags)
    entry = linux.decode(level, raw)
    assert (entry.kind, entry.pfn, entry.flags) == (K.PRESENT, pfn, flags)
    none = linux.modify(level, raw, F.NONE, prot_none=True)
    assert raw & 1
    assert not none & 1
    assert linux.decode(level, none).pfn == pfn
    back = linux.decode(level, linux.modify(level, none, flags))
    assert (back.kind, back.flags) == (K.PRESENT, flags)
    for flag in (F.WRITE, F.YOUNG, F.DIRTY, F.SPECIAL):
        assert flag in linux.decode(level, linux.set(level, raw, flag)).flags
        assert flag not in linux.decode(level, linux.clear(level, raw, flag)).flags
        assert linux.decode(level, linux.clear(level, raw, flag)).pfn == pfn


@pytest.mark.parametrize("layout", [*x86_linux.LAYOUTS.values(), *arm64_linux.LAYOUTS.values()], ids=lambda x: x.name)
def test_each_bit_stands_where_construct_says(layout):
    assert layout.width == 64
    for bit in range(64):
        assert layout.decode(1 << bit) == layout.parse(1 << bit), bit
