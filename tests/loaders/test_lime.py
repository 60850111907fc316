"""LiME and AVML dumps. No tool that writes them ships with Debian: the writer here follows their published headers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from dump_writers import avml, lime

from ptwalk.arch.errors import InputError
from ptwalk.loaders.lime import is_lime, read_lime

RANDOM = random.Random(11)
RANGES = {0x1000: RANDOM.randbytes(0x3000), 0x10_0000: b"\0" * 200_000, 1 << 45: RANDOM.randbytes(0x1000)}


def test_lime_reads_back_without_touching_the_file(tmp_path: Path) -> None:
    path = tmp_path / "dump.lime"
    path.write_bytes(lime(RANGES))
    before = path.read_bytes()
    assert is_lime(before[:8])
    memory = read_lime(path)
    for start, data in RANGES.items():
        assert memory.read(start, len(data)) == data
    memory.write_uint(0x1000, 1)
    assert memory.read_uint(0x1000) == 1
    assert path.read_bytes() == before


def test_avml_reads_back(tmp_path: Path) -> None:
    cramjam = pytest.importorskip("cramjam")
    path = tmp_path / "dump.avml"
    path.write_bytes(avml(RANGES, lambda data: bytes(cramjam.snappy.compress(data))))
    memory = read_lime(path)
    for start, data in RANGES.items():
        assert memory.read(start, len(data)) == data


@pytest.mark.parametrize("cut", [1, 31, 40, 0x3010, 0x3030])
def test_a_cut_file_names_the_place(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "dump.lime"
    path.write_bytes(lime(RANGES)[:cut])
    with pytest.raises(InputError, match=r"dump\.lime: offset 0x"):
        read_lime(path)


def test_a_range_that_ends_before_it_starts(tmp_path: Path) -> None:
    data = bytearray(lime({0x1000: b"x" * 16}))
    data[16:24] = (0xFFF).to_bytes(8, "little")
    path = tmp_path / "dump.lime"
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"offset 0x0: e_addr: .*\(0xfff\)"):
        read_lime(path)
