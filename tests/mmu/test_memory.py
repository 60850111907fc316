"""Physical memory: banks, bounds, words."""

from __future__ import annotations

import pytest

from ptwalk.arch.errors import BusError, InputError
from ptwalk.mmu.memory import PhysicalMemory


def test_a_bank_ends_where_it_ends() -> None:
    ram = PhysicalMemory()
    ram.add_bytes(0x1000, bytes(range(16)))
    assert ram.read_uint(0x1008) == 0x0F0E0D0C0B0A0908
    for pa in (0xFF8, 0x100C, 0x1010, (1 << 56) - 8):
        with pytest.raises(BusError, match=f"{pa:#018x}"):
            ram.read_uint(pa)


def test_banks_do_not_overlap_and_stay_sorted() -> None:
    ram = PhysicalMemory()
    ram.add_ram(0x10_0000, 0x1000)
    ram.add_ram(1 << 51, 0x1000)
    ram.add_ram(0x1000, 0x1000)
    assert [bank.start for bank in ram.banks] == [0x1000, 0x10_0000, 1 << 51]
    for start, size in ((0x800, 0x801), (0x10_0FFF, 1), (0xF_FFFF, 2)):
        with pytest.raises(InputError, match="overlaps"):
            ram.add_ram(start, size)
    with pytest.raises(InputError, match="address bits"):
        ram.add_ram((1 << 56) - 0x1000, 0x2000)


def test_reads_run_through_adjoining_banks() -> None:
    ram = PhysicalMemory()
    ram.add_bytes(0x1000, b"ab")
    ram.add_bytes(0x1002, b"cd")
    assert ram.read(0x1001, 2) == b"bc"
    with pytest.raises(BusError, match="0x0000000000001004"):
        ram.read(0x1001, 4)
