"""Device trees from dtc and QEMU, /proc/iomem of the captures, a real boot log, and QEMU's register text."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path

import pytest
from capture_files import CAPTURES, EXAMPLES, files_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptwalk.arch.errors import InputError
from ptwalk.loaders import load
from ptwalk.loaders.fdt import read_fdt

DATA = EXAMPLES.parent / "tests/data/loaders"
SMALL = DATA / "small.dtb"  # dtc 1.6.1 made it from small.dts


def test_a_tree_from_dtc() -> None:
    found = read_fdt(SMALL)
    assert found.compatible == "example,board"
    assert found.memory == [(0x8000_0000, 0x2000_0000), (0x8_8000_0000, 0x4000_0000)]
    assert found.reserved == [
        ("reservation block", 0x8100_0000, 0x10_0000),
        ("framebuffer@90000000", 0x9000_0000, 0x80_0000),
    ]
    machine = load(SMALL, arch="arm64")
    assert machine.memory.extents == ((0x8000_0000, 0xA000_0000), (0x8_8000_0000, 0x8_C000_0000))
    assert "reserved: 0x90000000-0x90800000 framebuffer@90000000" in machine.notes


def test_the_tree_of_qemus_virt_board(tmp_path: Path) -> None:
    path = tmp_path / "virt.dtb"
    path.write_bytes(gzip.decompress((DATA / "qemu-7.2-virt-1G.dtb.gz").read_bytes()))
    assert read_fdt(path).memory == [(0x4000_0000, 1 << 30)]
    assert read_fdt(path).compatible == "linux,dummy-virt"


@settings(max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)
)
def test_damaged_trees(tmp_path: Path, changes: list[tuple[float, bytes]]) -> None:
    data = bytearray(SMALL.read_bytes())
    for at, new in changes:
        i = int(at * len(data))
        data[i : i + len(new)] = new
    path = tmp_path / "x.dtb"
    path.write_bytes(b"\xd0\x0d\xfe\xed" + data[4:])
    try:
        machine = load(path, arch="arm64")
    except InputError as error:
        message = str(error)
    else:
        message = machine.format
    assert message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (4, ">I", 1 << 20, "totalsize: the file ends before the tree does"),
        (8, ">I", 1 << 19, "off_dt_struct: the block does not lie inside"),
        (16, ">I", 650, "the memory reservation block has no end"),
        (24, ">I", 99, "last_comp_version"),
        (72, ">I", 77, "no token of a device tree"),
    ],
)
def test_damaged_headers(tmp_path: Path, offset: int, form: str, value: int, message: str) -> None:
    data = bytearray(SMALL.read_bytes())
    struct.pack_into(form, data, offset, value)
    (tmp_path / "x.dtb").write_bytes(data)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.dtb", arch="arm64")


@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: p.name)
def test_iomem_of_a_real_kernel(tmp_path: Path, path: Path) -> None:
    text = files_of(path)["cp5/proc/iomem"]
    file = tmp_path / "iomem"
    file.write_bytes(text)
    machine = load(file, arch="x86_64")
    ram = [line for line in text.decode().splitlines() if re.fullmatch(r"[0-9a-f-]+ : System RAM", line)]
    assert ram
    for line, bank in zip(ram, machine.memory.banks, strict=True):
        first, last = (int(x, 16) for x in line.split(" ")[0].split("-"))
        assert (bank.start, bank.end - 1) == (first, last)


def test_e820_of_a_real_boot() -> None:
    machine = load(DATA / "boot-6.1-q35-5G.log", preset="x86_64-4level")
    assert [(b.start, b.end) for b in machine.memory.banks] == [
        (0, 0x9FC00), (0x10_0000, 0x7FFD_F000), (0x1_0000_0000, 0x1_C000_0000),
    ]  # fmt: skip
    assert "reserved: 0xfffc0000-0x100000000" in machine.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00000000-00000000 : System RAM\n", "has to be read as root"),
        ("00001000-00000fff : System RAM\n00002000-00001000 : System RAM\n", "line 1: the range ends before|line 2"),
        ("00001000-00001fff : reserved\n", "no range is RAM"),
        ("00001000-00001fff : System RAM\nwhat\n", "line 2 is none of /proc/iomem"),
        ("00001000-00002fff : System RAM\n00002000-00003fff : System RAM\n", "overlaps the bank"),
    ],
)
def test_texts_that_cannot_be_right(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "iomem").write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "iomem", arch="x86_64")


def test_a_raw_image_with_qemus_register_text(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(8192))
    machine = load(tmp_path / "ram", arch="x86_64", registers_from=DATA / "info-registers-qemu-7.2.txt")
    assert {name: hex(x) for name, x in machine.registers.items()} == {
        "CR0": "0x80050033", "CR3": "0x588e000", "CR4": "0x751ef0", "EFER": "0xd01", "RFLAGS": "0x246",
    }  # fmt: skip
    assert set(machine.spaces) == {"cpu0"}
    with pytest.raises(InputError, match="x86 CPUs alone"):
        load(tmp_path / "ram", arch="arm64", registers_from=DATA / "info-registers-qemu-7.2.txt")
    with pytest.raises(InputError, match="no CPU's CR0"):
        load(tmp_path / "ram", arch="x86_64", registers_from=SMALL)


def test_register_text_of_all_cpus(tmp_path: Path) -> None:
    path = next(path for path in CAPTURES if path.name == "x86_64-7.3.4-P.tar.xz")
    text = json.loads(files_of(path)["cp5/regs.json"])[0]
    (tmp_path / "regs").write_text(text, newline="")
    (tmp_path / "ram").write_bytes(bytes(8192))
    machine = load(tmp_path / "ram", arch="x86_64", registers_from=tmp_path / "regs")
    roots = [int(x, 16) for x in re.findall(r"CR3=([0-9a-f]+)", text)]
    assert [machine.spaces[f"cpu{i}"].registers["CR3"] for i in range(2)] == roots


def test_an_image_with_a_boot_log_in_it_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(100) + b"BIOS-e820: [mem 0x0000-0x0fff] usable\n" + bytes(5000))
    assert load(tmp_path / "ram", arch="x86_64").format == "raw image"
