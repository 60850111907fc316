"""Tests of an operating system's memory layout: what it maps for the device tree that the firmware hands over.

`map_memory` stands for the code under test. The tree (virt-reserved.dtb) is QEMU's for its arm64 board `virt`, with the
reserved-memory nodes of reserved.dts merged in as a firmware does it:

    qemu-system-aarch64 -M virt,dumpdtb=virt.dtb -m 128M
    dtc -@ -o reserved.dtbo reserved.dts && fdtoverlay -i virt.dtb -o virt-reserved.dtb reserved.dtbo

Every test runs in each arm64 paging mode: the nodes' borders do not always fall on a page's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ptwalk.loaders.fdt import read_fdt
from ptwalk.mmu.editor import TableEditor
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.hardware_entries import PageAttributes
from ptwalk.mmu.machine import Machine
from ptwalk.mmu.ranges import map_range
from ptwalk.mmu.walk import ALL_RIGHTS, Rights
from ptwalk.testing import assert_faults, assert_same_mappings, assert_translates, assert_unreachable

TREE = Path(__file__).parent / "virt-reserved.dtb"
UART, UART_SIZE = 0x900_0000, 0x1000  # pl011@9000000
TABLES, TABLES_SIZE = 0x4400_0000, 0x100_0000
DEVICE = 4  # the index of Device-nGnRE in MAIR_EL1

pytestmark = pytest.mark.paging_modes("arm64")


# ---- the code under test: RAM at a fixed offset, reserved memory left out, the UART as a device


def map_memory(editor: TableEditor, offset: int, page: int, page_size: int | None = None) -> None:
    tree = read_fdt(TREE)
    holes = sorted((start // page * page, -(-(start + size) // page) * page) for _, start, size in tree.reserved)
    kernel = PageAttributes(user=False)
    for start, size in tree.memory:
        at = start
        for hole_start, hole_end in [*holes, (start + size, start + size)]:
            if at < hole_start:
                map_range(editor, offset + at, at, hole_start - at, kernel, page_size=page_size)
            at = max(at, hole_end)
    device = PageAttributes(user=False, memory_type=DEVICE, shareability=0)
    map_range(editor, offset + UART, UART, -(-UART_SIZE // page) * page, device)


# ---- the tests


@pytest.fixture
def page(paging_mode: str) -> int:
    return {"4k": 1 << 12, "16k": 1 << 14, "64k": 1 << 16}[paging_mode.split("-")[1]]


@pytest.fixture
def boot(ptwalk_machine: Callable[..., Machine], paging_mode: str, page: int) -> Callable[..., Machine]:
    """A function: the machine of the tree after `map_memory` has run on it."""

    def run(page_size: int | None = None) -> Machine:
        registers = {"TTBR0_EL1": TABLES, "TTBR1_EL1": TABLES + page}
        machine = ptwalk_machine(TREE, preset=paging_mode, registers=registers)
        frames = FrameAllocator(TABLES + 2 * page, TABLES + TABLES_SIZE, page)
        map_memory(TableEditor(machine.memory, machine.regime(), frames), offset(machine), page, page_size)
        return machine

    return run


@pytest.fixture
def machine(boot: Callable[..., Machine]) -> Machine:
    return boot()


def offset(machine: Machine) -> int:
    """Where the upper half of the addresses starts."""
    return machine.regime().trees[-1].va_start


@pytest.mark.parametrize("pa", [0x4000_0000, 0x401F_FFF8, 0x4040_0000, 0x43FE_FFF8, 0x4400_0000, 0x477F_FFF8])
def test_ram_is_there_up_to_the_edges_of_what_is_reserved(machine: Machine, pa: int) -> None:
    cached = "Normal WB-RWA inner shareable"
    assert_translates(machine, offset(machine) + pa, pa, mode="kernel", access="write", memory_type=cached)


def test_no_reserved_node_can_be_touched(machine: Machine) -> None:
    reserved = read_fdt(TREE).reserved
    assert {name.split("@")[0] for name, _, _ in reserved} == {"secure-firmware", "ramoops", "framebuffer"}
    for _, start, size in reserved:
        assert_unreachable(machine, start, size)
        assert_faults(machine, offset(machine) + start, mode="kernel", name="Translation fault")


def test_nothing_is_executable_and_nothing_is_for_user_mode(machine: Machine) -> None:
    assert_unreachable(machine, 0, 1 << 48, ALL_RIGHTS & ~(Rights.KR | Rights.KW))


def test_the_uart_is_a_device(machine: Machine) -> None:
    device = "Device-nGnRE outer shareable"
    assert_translates(machine, offset(machine) + UART, UART, mode="kernel", access="write", memory_type=device)


def test_blocks_and_pages_map_the_same(boot: Callable[..., Machine], page: int) -> None:
    assert_same_mappings(boot(), boot(page_size=page))
