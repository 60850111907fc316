"""Raw images, options, presets."""

from __future__ import annotations

from pathlib import Path

import pytest
from dump_writers import diskdump, lime

from ptwalk.arch.errors import InputError
from ptwalk.loaders import load
from ptwalk.loaders.presets import PRESETS


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "ram.bin"
    path.write_bytes(bytes(0x20000))
    return path


def test_base_root_and_registers(image: Path) -> None:
    machine = load(image, arch="x86_64", base=0x10_0000, root=0x10_1000, registers={"CR4": 0x20})
    assert machine.memory.extents == ((0x10_0000, 0x12_0000),)
    assert machine.registers["CR3"] == 0x10_1000
    assert machine.registers["CR4"] == 0x20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "for a raw image name its architecture or a preset"),
        ({"arch": "vax"}, "arch: unknown architecture"),
        ({"preset": "x86_64-6level"}, "preset: no such preset"),
        ({"preset": "x86_64-4level", "arch": "arm64"}, "preset: the preset is for x86_64, not arm64"),
        ({"arch": "x86_64", "base": 1 << 60}, "base: the bank ends beyond 56 address bits"),
        ({"arch": "x86_64", "registers": {"CR9": 1}}, "registers: no register of x86_64"),
        ({"arch": "x86_64", "registers": {"CR3": 1 << 64}}, "registers.CR3: does not fit"),
        ({"arch": "x86_64", "checkpoint": 1}, "checkpoint: this option belongs to captures"),
        ({"arch": "arm64", "root": 1 << 50}, "root: no 48-bit base address"),
    ],
)
def test_refusals(image: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(image, **options)  # type: ignore[arg-type]


def test_no_such_file_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none")
    with pytest.raises(InputError, match="neither a regular file"):
        load("/dev/null")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        load(tmp_path / "empty", arch="x86_64")


# VA bits, levels and page size that each mode has by its name (Linux's Kconfig tables)
MODES = {
    "x86_64-4level": (48, 4, 12), "x86_64-5level": (57, 5, 12),
    "arm64-4k-39": (39, 3, 12), "arm64-4k-48": (48, 4, 12), "arm64-4k-52": (52, 5, 12),
    "arm64-16k-36": (36, 2, 14), "arm64-16k-47": (47, 3, 14), "arm64-16k-48": (48, 4, 14), "arm64-16k-52": (52, 4, 14),
    "arm64-64k-42": (42, 2, 16), "arm64-64k-48": (48, 3, 16), "arm64-64k-52": (52, 3, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets(image: Path, name: str) -> None:
    bits, levels, page_shift = MODES[name]
    low, high = load(image, preset=name, root=0x10000).regime().trees
    half = 1 << bits - (name[0] == "x")
    assert (low.va_start, low.va_end) == (0, half)
    assert (high.va_start, high.va_end) == ((1 << 64) - half, 1 << 64)
    for tree in (low, high):
        assert (len(tree.levels), tree.levels[-1].shift, tree.root) == (levels, page_shift, 0x10000)


def test_lime_and_kdump_come_through_load(tmp_path: Path) -> None:
    path = tmp_path / "a.lime"
    path.write_bytes(lime({0x1000: b"\x5a" * 4096}))
    with pytest.raises(InputError, match="arch: this file holds no registers"):
        load(path)
    assert load(path, arch="arm64").memory.read(0x1800, 1) == b"\x5a"
    path = tmp_path / "a.kdump"
    path.write_bytes(diskdump({3: b"\x5a" * 4096}))
    machine = load(path, preset="x86_64-4level", root=0x3000)
    assert machine.arch == "x86_64"
    assert machine.memory.read(0x3000, 1) == b"\x5a"
