"""ptdump text and /proc/PID folders: lines that kernels printed, the running kernel's own files, and hostile ones.

The ptdump lines are output of real kernels, quoted from reports on the kernel's mailing lists: x86-64 with page-table
isolation, an x86-64 boot log, arm64 with large linear-map blocks.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from capture_files import SMALL, files_of, only

from ptwalk.arch.errors import InputError, PtwalkError
from ptwalk.cli import run
from ptwalk.loaders import load
from ptwalk.loaders.listing import Listing, load_listing
from ptwalk.mmu.spaces import leaves
from ptwalk.mmu.walk import Rights

X86 = """---[ User Space ]---
0x0000000000000000-0xffff800000000000   16777088T                               pgd
---[ CPU entry Area ]---
0xfffffe0000000000-0xfffffe0000002000           8K     ro                 GLB NX pte
0xfffffe0000002000-0xfffffe0000003000           4K     RW                 GLB NX pte
0xfffffe0000003000-0xfffffe0000006000          12K     ro                 GLB NX pte
0xfffffe0000006000-0xfffffe0000007000           4K     ro                 GLB x  pte
0xfffffe000000d000-0xfffffe000002d000         128K                               pte
---[ High Kernel Mapping ]---
0xffffffff81c00000-0xffffffff81e00000           2M     ro         PSE     GLB x  pmd
"""
LOG = """[    0.009704] ---[ Kernel Space ]---
[    0.009709] 0xffff800000000000-0xffff808000000000         512G                               pgd
[    0.009774] 0xffff820000000000-0xffff998000000000       24064G                               pgd
[    0.009800] 0xffff999900000000-0xffff999900200000           2M     RW                 GLB NX pte
[    0.009813] 0xffff999900200000-0xffff999909c00000         154M     RW         PSE     GLB NX pmd
[    0.009900] some other line of the log
"""
ARM64 = """---[ Linear Mapping start ]---
0xffff000000000000-0xffff000000200000           2M PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL-TAGGED
0xffff000000200000-0xffff000000210000          64K PTE       RW NX SHD AF    CON     UXN    MEM/NORMAL-TAGGED
0xffff000000210000-0xffff000000400000        1984K PTE       ro NX SHD AF            UXN    MEM/NORMAL
0xffff000040000000-0xffff008000000000         511G PUD
0xffff008000000000-0xffff800000000000      130560G PGD
---[ Linear Mapping end ]---
"""


def listing(tmp_path: Path, text: str) -> Listing:
    path = tmp_path / "dump"
    path.write_text(text)
    found = load_listing(path)
    assert found is not None
    return found


def test_x86_lines(tmp_path: Path) -> None:
    rows = listing(tmp_path, X86).rows
    assert [(row.level, row.size >> 10, row.section) for row in rows] == [
        ("PTE", 8, "CPU entry Area"),
        ("PTE", 4, "CPU entry Area"),
        ("PTE", 12, "CPU entry Area"),
        ("PTE", 4, "CPU entry Area"),
        ("PMD", 2048, "High Kernel Mapping"),
    ]
    assert [row.rights for row in rows[1:4]] == [Rights.KR | Rights.KW, Rights.KR, Rights.KR | Rights.KX]
    assert rows[-1].text == "ro PSE GLB x"


def test_a_boot_log_with_time_stamps(tmp_path: Path) -> None:
    rows = listing(tmp_path, LOG).rows
    assert [(hex(row.va), row.level, row.size >> 20) for row in rows] == [
        ("0xffff999900000000", "PTE", 2),
        ("0xffff999900200000", "PMD", 154),
    ]


def test_arm64_lines(tmp_path: Path) -> None:
    rows = listing(tmp_path, ARM64).rows
    assert [(row.level, row.text.split()[0], row.size >> 10) for row in rows] == [
        ("PMD", "RW", 2048),
        ("PTE", "RW", 64),
        ("PTE", "ro", 1984),
    ]
    assert rows[0].rights == Rights.KR | Rights.KW
    assert "CON" in rows[1].text


def test_info_of_a_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dump"
    path.write_text(X86)
    assert run(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["ranges"], int(found["bytes"], 16)) == ("ptdump text", 5, (28 << 10) + (2 << 20))
    assert run(["info", str(path)]) == 0
    assert "no physical addresses" in capsys.readouterr().out
    assert run(["info", str(path), "--arch", "arm64"]) == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0xfffffe0000000000-0xfffffe0000002000           4K     ro                 GLB NX pte", "has not the 4K"),
        ("0xfffffe0000003000-0xfffffe0000002000           4K     ro                 GLB NX pte", "has not the 4K"),
        ("0xfffffe0000002000-0xfffffe0000003000           4K     wo                 GLB NX pte", "not an attribute"),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"line 10: .*{problem}"):
        listing(tmp_path, "\n".join([*X86.splitlines()[:3], *[""] * 6, line]))
    with pytest.raises(InputError, match="line 5: the range begins before the last one ended"):
        listing(tmp_path, "\n".join([*X86.splitlines()[:4], X86.splitlines()[3]]))


def test_the_commands_say_what_a_ptdump_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text(X86)
    other.write_text(X86.replace("4K     ro                 GLB x ", "4K     RW                 GLB x "))
    assert run(["walk", str(path), "ffffffff81c01000"]) == 0
    out = capsys.readouterr().out
    assert "PA    not told by this listing" in out
    assert "kernel r-x, user ---" in out
    assert run(["walk", str(path), "fffffe000000d000"]) == 1
    assert run(["lint", str(path)]) == 0
    assert run(["lint", str(other)]) == 1
    assert run(["diff", str(path), str(other), "--json"]) == 1
    capsys.readouterr()
    assert run(["diff", str(path), str(other), "--json"]) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["va_start"], change["before"]["rights"], change["after"]["rights"]) == (
        "0xfffffe0000006000",
        "kernel r-x, user ---",
        "kernel rwx, user ---",
    )
    assert run(["ptov", str(path), "1000"]) == 2
    assert "tells no physical addresses" in capsys.readouterr().err
    assert run(["maps", str(path), "--process", "A"]) == 2
    assert "has no page tables and takes no such option" in capsys.readouterr().err


def test_the_running_kernel_s_own_files() -> None:
    """Every present page that pagemap tells of this process lies in an area of maps with the same letters."""
    found = load_listing("/proc/self")
    assert found is not None
    areas = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, letters = line.split()[:2]
        areas[int(where.split("-")[0], 16)] = letters
    starts = sorted(areas)
    code = id(found)  # an object on this process's heap
    row = found.at(code)
    assert row is not None
    assert row.text.split()[0] == areas[max(start for start in starts if start <= row.va)] == "rw-p"
    assert row.rights == Rights.UR | Rights.UW
    known = any(row.pa for row in found.rows)
    assert known or any("hidden" in note for note in found.notes) or os.geteuid() != 0


def process_folder(tmp_path: Path, words: dict[int, int], maps: str) -> Path:
    folder = tmp_path / "42"
    folder.mkdir()
    (folder / "maps").write_text(maps)
    with (folder / "pagemap").open("wb") as file:
        for page, word in words.items():
            file.seek(8 * page)
            file.write(word.to_bytes(8, "little"))
    return folder


MAPS = "00400000-00404000 r-xp 00000000 08:01 7 /bin/true\n00600000-00602000 rw-p 00000000 00:00 0 [heap]\n"


def test_a_copied_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    present, swap, file = 1 << 63, 1 << 62, 1 << 61
    words = {
        0x400: present | file | 0x77,
        0x401: present | file | 0x78,
        0x403: 0,
        0x600: present | 1 << 56 | 5,
        0x601: swap | 9,
    }
    folder = process_folder(tmp_path, words, MAPS)
    found = load_listing(folder)
    assert found is not None
    assert [(row.va, row.size, row.pa, row.text) for row in found.rows] == [
        (0x400000, 0x2000, 0x77000, "r-xp file"),
        (0x600000, 0x1000, 0x5000, "rw-p exclusive"),
    ]
    assert found.notes == ("4K pages", "1 pages are in swap")
    assert run(["ptov", str(folder), "78123"]) == 0
    assert "0x0000000000401123" in capsys.readouterr().out
    assert run(["walk", str(folder), "400010"]) == 0
    assert "PA    0x0000000000077010" in capsys.readouterr().out
    assert run(["walk", str(folder), "402000"]) == 1
    (folder / "pagemap").unlink()
    areas = load_listing(folder)
    assert areas is not None
    assert [row.size for row in areas.rows] == [0x4000, 0x2000]
    assert "mapped or not" in areas.notes[0]


@pytest.mark.parametrize(
    ("maps", "problem"),
    [
        ("rubbish\n", "maps: line 1: not a line of maps"),
        (MAPS + "00500000-00501000 rw-p 00000000 00:00 0\n", "maps: line 3: areas do not ascend"),
        ("00400000-00400000 rw-p 00000000 00:00 0\n", "maps: line 1: areas do not ascend"),
        ("00001000-7ffffffff000 rw-p 00000000 00:00 0\n", "the areas have more than"),
        ("00400000-00409000 rw-p 00000000 00:00 0\n", "pagemap: offset 0x.*: the file ends inside an area"),
    ],
)
def test_hostile_folders(tmp_path: Path, maps: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_listing(process_folder(tmp_path, {0x400: 1 << 63}, maps))


def test_a_folder_of_a_captured_process(tmp_path: Path) -> None:
    """maps, smaps and pagemap that a real kernel wrote: what they list are the leaves of that process's tables.

    Apart from two of Linux's own rules: PROT_NONE pages are present for Linux only, and walks for pagemap leave out
    areas of bare frames (VM_PFNMAP) such as /dev/mem.
    """
    files = only(files_of(SMALL), 5)
    folder = tmp_path / "A"
    folder.mkdir()
    for name in ("maps", "smaps"):
        (folder / name).write_bytes(files[f"cp5/proc/A/{name}"])
    areas = json.loads(files["cp5/A.pagemap.json"])
    words = files["cp5/A.pagemap.bin"]
    with (folder / "pagemap").open("wb") as file:  # sparse, as cp of a real one would have to keep it
        for start, _, first, count in areas:
            file.seek(int(start, 16) // 4096 * 8)
            file.write(words[first * 8 : (first + count) * 8])
    found = load_listing(folder)
    assert found is not None
    listed = {row.va + n: (row.pa or 0) + n for row in found.rows for n in range(0, row.size, 4096)}
    machine = load(SMALL, checkpoint=5)
    tables = {
        leaf.va + n: leaf.pa + n
        for leaf in leaves(machine.memory, machine.regime("A"))
        if leaf.va < 1 << 47
        for n in range(0, leaf.size, 4096)
    }
    at = {va: row for row in found.rows for va in range(row.va, row.end, 4096)}
    only_listed, only_in_tables = listed.keys() - tables.keys(), tables.keys() - listed.keys()
    assert {at[va].text.split()[0] for va in only_listed} == {"---p"}
    (device,) = [line for line in files["cp5/proc/A/maps"].decode().splitlines() if line.endswith("/dev/mem")]
    start, end = (int(word, 16) for word in device.split()[0].split("-"))
    assert only_in_tables == set(range(start, end, 4096))
    assert len(listed) - len(only_listed) > 6000
    assert all(tables[va] == pa for va, pa in listed.items() if va not in only_listed)


def test_damaged_texts_end_in_a_sentence(tmp_path: Path) -> None:
    seed = 20261123
    rng = random.Random(seed)
    path, read = tmp_path / "dump", 0
    refused: list[str] = []
    for _ in range(300):
        raw = bytearray((X86 + ARM64).encode())
        for _ in range(rng.randint(1, 6)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(raw[: rng.randrange(1, len(raw))])
        try:
            load_listing(path)
            read += 1
        except PtwalkError as error:
            refused.append(str(error))
    assert read > 20, f"seed {seed}"
    assert len(refused) > 20, f"seed {seed}"
    assert all(str(path) in sentence for sentence in refused), f"seed {seed}"
