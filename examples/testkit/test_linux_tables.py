"""Tests of page tables that other people's code built: those of Linux 6.1, booted in QEMU.

Run them with `pytest examples/testkit`. The files beside this one:

- linux-6.1.elf.xz: QEMU's `dump-guest-memory` of the running kernel (5-level paging), cut down to the pages with tables
  by examples/trim_dump.py, so there is nothing in it but page tables and registers;
- linux-6.1.info-tlb.xz: what QEMU's own `info tlb` said at that moment;
- linux-6.1.iomem: that kernel's /proc/iomem, which tells where its code and its read-only data lie.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ptwalk.mmu.machine import Machine
from ptwalk.mmu.walk import Rights
from ptwalk.testing import AccessName, Mode, assert_faults, assert_translates, assert_unreachable

HERE = Path(__file__).parent
WRITE, EXECUTE = Rights.KW | Rights.UW, Rights.KX | Rights.UX
USER = Rights.UR | Rights.UW | Rights.UX


@pytest.fixture
def linux(ptwalk_machine: Callable[..., Machine]) -> Machine:
    return ptwalk_machine(lzma.decompress((HERE / "linux-6.1.elf.xz").read_bytes()))


def section(name: str) -> tuple[int, int]:
    """Where /proc/iomem puts a part of the kernel: first address and size."""
    match = re.search(rf"([0-9a-f]+)-([0-9a-f]+) : {name}$", (HERE / "linux-6.1.iomem").read_text(), re.MULTILINE)
    assert match, f"/proc/iomem has no {name}"
    first, last = (int(digits, 16) for digits in match.groups())
    return first, last + 1 - first


def test_every_page_is_where_qemu_sees_it(linux: Machine) -> None:
    """The lowest address of each physical page in `info tlb`; its flags (XGPDACTUW) tell who may write."""
    lines = lzma.decompress((HERE / "linux-6.1.info-tlb.xz").read_bytes()).decode().splitlines()
    pages = {pa: (int(va, 16), flags) for va, pa, flags in (line.replace(":", "").split() for line in reversed(lines))}
    assert len(pages) > 6000
    for pa, (va, flags) in pages.items():
        mode: Mode = "user" if "U" in flags else "kernel"
        if "W" in flags:
            assert_translates(linux, va, int(pa, 16), mode=mode, access="write")
        else:
            assert_translates(linux, va, int(pa, 16), mode=mode)
            assert_faults(linux, va, mode=mode, access="write")


def test_kernel_code_cannot_be_written(linux: Machine) -> None:
    """Not through any of its mappings: the kernel's own, and the direct map of all memory."""
    assert_unreachable(linux, *section("Kernel code"), WRITE)


def test_kernel_constants_cannot_be_written_or_executed(linux: Machine) -> None:
    """Not by the kernel: the vDSO, which user mode runs, lies among them."""
    assert_unreachable(linux, *section("Kernel rodata"), WRITE | Rights.KX)


@pytest.mark.parametrize("name", ["Kernel data", "Kernel bss"])
def test_kernel_variables_cannot_be_executed(linux: Machine, name: str) -> None:
    assert_unreachable(linux, *section(name), EXECUTE)


@pytest.mark.parametrize("name", ["Kernel code", "Kernel data"])
def test_user_mode_reaches_nothing_of_the_kernel(linux: Machine, name: str) -> None:
    """Code and data alone: the vDSO lies among the constants, and a part of the bss is free memory once Linux runs."""
    assert_unreachable(linux, *section(name), USER)


@pytest.mark.parametrize("access", ["read", "write", "execute"])
@pytest.mark.parametrize("mode", ["user", "kernel"])
def test_nothing_is_mapped_at_zero(linux: Machine, access: AccessName, mode: Mode) -> None:
    assert assert_faults(linux, 0, access=access, mode=mode, name="#PF").code & 1 == 0  # P = 0: no page


def test_the_kernel_keeps_out_of_user_code(linux: Machine) -> None:
    """SMEP and SMAP are on: user mode runs this page of init, the kernel may neither run nor read it."""
    assert_translates(linux, 0x40_1000, access="execute")
    assert assert_faults(linux, 0x40_1000, access="execute", mode="kernel").bit == "CR4.SMEP"
    assert assert_faults(linux, 0x40_1000, access="read", mode="kernel").bit == "CR4.SMAP"
