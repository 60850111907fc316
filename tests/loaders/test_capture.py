"""Captures: what the shipped files say of themselves, read here by other means, against what the loader makes of it."""

from __future__ import annotations

import io
import json
import lzma
import re
import struct
import tarfile
from pathlib import Path

import pytest
from capture_files import CAPTURES, SMALL, files_of, only, tar_xz, walk_members, write_directory

from ptwalk.arch.errors import InputError
from ptwalk.loaders import load
from ptwalk.loaders.archive import MAX_ARCHIVE
from ptwalk.loaders.capture import Capture, Root
from ptwalk.loaders.capture_machine import pti_halves
from ptwalk.mmu.walk import Access, AccessKind, Translation, outcome


@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: p.name)
def test_what_a_capture_says_of_itself(path: Path) -> None:
    files = files_of(path)
    meta = json.loads(files["meta.json"])
    roots = json.loads(files["cp5/roots.json"])
    machine = load(path)
    assert machine.arch == {"x86": "x86_64", "arm64": "arm64"}[meta["arch"]]
    assert machine.kernel == meta["uname"][2]
    assert "checkpoint 5 of" in machine.notes[0]
    assert {s.name: s.pid for s in machine.spaces.values()} == {
        tag: root["pid"] for tag, root in roots.items() if tag[0] != "_"
    }
    register = "CR3" if machine.arch == "x86_64" else "TTBR0_EL1"
    for tag, space in machine.spaces.items():
        assert space.registers[register] == int(roots[tag]["pgd_phys"], 16)
    size = sum(len(bank.data) for bank in machine.memory.banks)
    assert size == len(files["cp5/ptpages.bin"])
    tree = machine.regime("A").trees[0]
    assert (len(tree.levels), tree.levels[-1].shift) == (meta["levels"], meta["page_shift"])
    assert tree.levels[0].index_bits == meta["top_level_index_bits"]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: p.name)
def test_a_page_of_text_goes_where_pagemap_says(path: Path) -> None:
    """0x401000 is the workload's first page of text; it is read from the raw files with struct alone."""
    files = files_of(path)
    index = json.loads(files["cp5/A.pagemap.json"])
    start, _, first, _ = next(area for area in index if int(area[0], 16) <= 0x401000 < int(area[1], 16))
    page = 1 << json.loads(files["meta.json"])["page_shift"]
    (word,) = struct.unpack_from("<Q", files["cp5/A.pagemap.bin"], 8 * (first + (0x401000 - int(start, 16)) // page))
    machine = load(path)
    result = outcome(machine.regime("A").walk(machine.memory, 0x401000, Access(AccessKind.EXECUTE, user=True)))
    assert isinstance(result, Translation)
    assert result.pa == (word & (1 << 55) - 1) * page


def test_directory_and_archive_are_the_same(tmp_path: Path) -> None:
    one, other = load(SMALL), load(write_directory(files_of(SMALL), tmp_path / "capture"))
    assert one.registers == other.registers
    assert one.spaces == other.spaces
    for mine, theirs in zip(one.memory.banks, other.memory.banks, strict=True):
        assert (mine.start, bytes(mine.data)) == (theirs.start, bytes(theirs.data))


def test_an_archive_without_a_top_folder(tmp_path: Path) -> None:
    files = only(walk_members(files_of(SMALL)), 5)
    for top in (".", "x"):
        path = tmp_path / "c.tar.xz"
        path.write_bytes(tar_xz(files, top=top))
        assert load(path).spaces == load(SMALL).spaces


def test_checkpoints() -> None:
    main = next(path for path in CAPTURES if path.name == "x86_64-deb6.1-nopti.tar.xz")
    assert "B" not in load(main, checkpoint=1).spaces
    assert set(load(main).spaces) == {"ctl", "A", "B", "C"}
    assert "A" not in load(main, checkpoint=6).spaces
    with pytest.raises(InputError, match=r"checkpoint: no such checkpoint \(there are: 1, 2, 3, 4, 5, 6\) \(0x9\)"):
        load(main, checkpoint=9)


def test_registers_are_those_of_the_first_cpu_at_that_checkpoint() -> None:
    text = json.loads(files_of(SMALL)["cp4/regs.json"])[0]
    cr3 = int(re.findall(r"CR3=([0-9a-f]+)", text)[0], 16)
    assert load(SMALL, checkpoint=4).registers["CR3"] == cr3


def test_52_bit_roots_are_encoded_for_the_register(tmp_path: Path) -> None:
    """A root above 2**48 puts bits 51:48 into TTBR bits 5:2; the others stay where they are."""
    source = next(path for path in CAPTURES if "lpa2" in path.name)
    files = only(walk_members(files_of(source)), 5)
    roots = json.loads(files["cp5/roots.json"])
    assert int(roots["A"]["pgd_phys"], 16) % 4096, "the roots of this capture are not page-aligned"
    roots["A"]["pgd_phys"] = hex(0x9_0000_50A7_8A80)
    files["cp5/roots.json"] = json.dumps(roots).encode()
    machine = load(write_directory(files, tmp_path / "c"))
    assert machine.spaces["A"].registers["TTBR0_EL1"] == 0x50A7_8A80 | 9 << 2
    roots["A"]["pgd_phys"] = "0x50a78a90"
    (tmp_path / "c/cp5/roots.json").write_text(json.dumps(roots))
    with pytest.raises(InputError, match=r"roots.json: A.pgd_phys: no 52-bit base address"):
        load(tmp_path / "c")


def test_page_table_isolation_makes_two_spaces(tmp_path: Path) -> None:
    files = only(walk_members(files_of(SMALL)), 5)
    roots = json.loads(files["cp5/roots.json"])
    pgd = int(roots["A"]["pgd_phys"], 16)
    assert pgd & 0x1000 == 0
    for given in (pgd, pgd | 0x1000):
        roots["A"] |= {"pgd_phys": hex(given), "all_matching_roots": [hex(pgd), hex(pgd | 0x1000)]}
        files["cp5/roots.json"] = json.dumps(roots).encode()
        spaces = load(write_directory(files, tmp_path / hex(given))).spaces
        assert spaces["A"].registers == {"CR3": pgd}
        assert spaces["A:user"].registers == {"CR3": pgd | 0x1000}
        assert spaces["A:user"].pid == spaces["A"].pid
        assert "B:user" not in spaces
    assert pti_halves(Root("A", 1, 0x5000, (0x5000,))) is None


def test_structpages_and_pfn_arrays() -> None:
    files, checkpoint = files_of(SMALL), Capture(SMALL).checkpoint(5)
    flags = checkpoint.pfn_array("flags")
    assert flags is not None
    assert flags.get(0x1000) == struct.unpack_from("<Q", files["cp5/kpageflags.0.bin"], 8 * 0x1000)[0]
    assert flags.get(len(flags.values)) is None
    pages = checkpoint.structpages()
    first = struct.unpack_from("<Q", files["cp5/structpage.pfn"])[0]
    assert pages[first] == files["cp5/structpage.bin"][:64]


def _broken(name: str, data: bytes | None) -> dict[str, bytes]:
    files = dict(only(walk_members(files_of(SMALL)), 5))
    if data is None:
        del files[name]
    else:
        files[name] = data
    return files


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("meta.json", b"{", "meta.json: not JSON"),
        ("meta.json", b"[" * 100_000, "meta.json: not JSON"),
        ("meta.json", b'{"arch": "vax"}', "arch: unknown architecture"),
        ("meta.json", b'{"arch": "x86"}', "page_shift: missing"),
        ("cp5/ptpages.bin", b"x" * 4095, "and the file holds 0xfff bytes"),
        ("cp5/ptpages.idx", b"x" * 9, "not a whole number of 8-byte words"),
        ("cp5/ptpages.bin", None, "lacks this file"),
        ("cp5/roots.json", b'{"A": {"pid": -1, "pgd_phys": "0"}}', "A.pid: not an integer"),
        ("cp5/roots.json", b'{"A": {"pid": 1, "pgd_phys": "zz"}}', "A.pgd_phys: not a hexadecimal number"),
        ("cp5/roots.json", b"[]", "not an object"),
        ("cp5/regs.json", b"{}", "not a list"),
    ],
)
def test_damaged_files_name_file_and_field(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    path = tmp_path / "capture.tar.xz"
    path.write_bytes(tar_xz(_broken(name, data)))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_table_addresses_have_to_ascend(tmp_path: Path) -> None:
    files = only(walk_members(files_of(SMALL)), 5)
    index = bytearray(files["cp5/ptpages.idx"])
    index[8:16] = index[0:8]
    path = write_directory(files | {"cp5/ptpages.idx": bytes(index)}, tmp_path / "c")
    with pytest.raises(InputError, match=r"cp5/ptpages.idx: offset 0x8: page addresses have to be aligned and"):
        load(path)


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _info(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_tar((_info("c/../../etc/x"), b"")), "not a member name"),
        (_tar((_info("/etc/x"), b"")), "not a member name"),
        (_tar((_info("c/meta.json", tarfile.SYMTYPE), b"")), "no regular file"),
        (_tar((_info("c/meta.json", tarfile.LNKTYPE), b"")), "no regular file"),
        (_tar((_info("c/a"), b""), (_info("c/a"), b"")), "two members share this name"),
        (_tar((_info("c/a"), b"x" * 5000))[:4096], "cut|cannot be read|runs beyond"),
        (_tar((_info("c/a"), b"x"))[:1024], "without its two zero blocks"),
        (b"", "the tar inside cannot be read"),
        (b"x" * 10240, "the tar inside cannot be read"),
    ],
)
def test_hostile_archives(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "capture.tar.xz"
    path.write_bytes(lzma.compress(data, preset=0))
    with pytest.raises(InputError, match=message):
        load(path)


def test_a_bomb_is_not_opened_to_its_end(tmp_path: Path) -> None:
    packer = lzma.LZMACompressor(preset=0)
    block = bytes(1 << 24)
    data = b"".join(packer.compress(block) for _ in range(MAX_ARCHIVE // len(block) + 1)) + packer.flush()
    path = tmp_path / "capture.tar.xz"
    path.write_bytes(data)
    with pytest.raises(InputError, match="decompresses to more than 0x20000000 bytes"):
        load(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
def test_cut_archives(tmp_path: Path, keep: float) -> None:
    data = SMALL.read_bytes()
    path = tmp_path / "capture.tar.xz"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"cut short|damaged"):
        load(path)


def test_directories_that_are_no_captures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"without meta\.json"):
        load(tmp_path)
    write_directory({"meta.json": files_of(SMALL)["meta.json"]}, tmp_path / "c")
    with pytest.raises(InputError, match="holds no checkpoint"):
        load(tmp_path / "c")
    (tmp_path / "c/cp1").mkdir()
    (tmp_path / "c/cp1/ptpages.idx").symlink_to("/etc/passwd")
    (tmp_path / "c/cp1/roots.json").write_text("{}")
    with pytest.raises(InputError, match=r"cp1/ptpages\.idx: not a regular file"):
        load(tmp_path / "c")
