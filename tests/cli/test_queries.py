"""Questions about whole spaces: reverse lookups, filters, differences, lint, other tools' listings."""

from __future__ import annotations

import csv
import json
import struct
import tarfile
from pathlib import Path

import pytest
from capture_files import SMALL, files_of, only, write_directory

from ptwalk.cli import run
from ptwalk.loaders import load
from ptwalk.mmu.spaces import Leaf, leaves
from ptwalk.mmu.walk import Rights
from ptwalk.queries import Filter, Finding, diff, lint

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
X86 = CAPTURES / "x86_64-7.3.4-P.tar.xz"
PS = 1 << 7  # Intel SDM volume 3A table 5-18: this entry maps a page


def _member(name: str) -> str:
    with tarfile.open(X86) as archive:
        found = next(m for m in archive.getmembers() if m.name.endswith(name))
        content = archive.extractfile(found)
        assert content is not None
        return content.read().decode()


@pytest.mark.parametrize(("cpu", "process", "lines"), [(0, "B", 14842), (1, "C", 14108)])
def test_the_qemu_listing_equals_qemus_own(
    capsys: pytest.CaptureFixture[str], cpu: int, process: str, lines: int
) -> None:
    """QEMU's `info tlb` at checkpoint 5, when each CPU ran the process named here."""
    theirs = [line for line in _member(f"info_tlb_cpu{cpu}.txt").splitlines() if line[16:17] == ":"]
    assert run(["maps", str(X86), "--process", process, "--format", "qemu-tlb"]) == 0
    ours = capsys.readouterr().out.splitlines()
    assert len(theirs) == lines
    assert ours == theirs


def test_ptov_finds_what_the_walks_find(capsys: pytest.CaptureFixture[str]) -> None:
    machine = load(X86)
    pa = 0x1204E000
    expected = {
        (name, leaf.va + pa - leaf.pa)
        for name in machine.spaces
        for leaf in leaves(machine.memory, machine.regime(name))
        if leaf.pa <= pa < leaf.pa + leaf.size
    }
    assert run(["ptov", str(X86), hex(pa), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["mappings"]
    assert {(row["space"], int(row["va"], 16)) for row in found} == expected
    assert ("A", 0x1_0000_0000) in expected
    assert run(["ptov", str(X86), "0xf_ffff_f000"]) == 1
    assert "mapped 0 times" in capsys.readouterr().out


def test_csv_covers_the_same_bytes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["maps", str(X86), "--process", "A", "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert run(["maps", str(X86), "--process", "A", "--json"]) == 0
    ranges = json.loads(capsys.readouterr().out)["ranges"]
    total = [sum(int(r["va_end"], 16) - int(r["va_start"], 16) for r in found) for found in (rows, ranges)]
    assert total[0] == total[1] > 0


def test_filters_hold_all_their_conditions() -> None:
    machine = load(X86)
    found = list(leaves(machine.memory, machine.regime("A")))
    big = [leaf for leaf in found if Filter(size=2 << 20, without=Rights.UR)(leaf)]
    assert big == [leaf for leaf in found if leaf.size == 2 << 20 and not leaf.rights & Rights.UR]
    assert big
    window = Filter(va=(0x401000, 0x403000), rights=Rights.UR | Rights.UX)
    assert [leaf.va for leaf in found if window(leaf)] == [0x401000, 0x402000]


def test_diff_of_checkpoints_is_antisymmetric_and_exact() -> None:
    machines = [load(X86, checkpoint=n) for n in (2, 3)]
    spaces = [list(leaves(m.memory, m.regime("A"))) for m in machines]
    changes = list(diff(*spaces))
    back = list(diff(*reversed(spaces)))
    assert [(c.va, c.size, c.before, c.after) for c in changes] == [(c.va, c.size, c.after, c.before) for c in back]
    assert not list(diff(spaces[0], spaces[0]))
    pages = [
        {
            leaf.va + at: (leaf.pa + at, leaf.rights, leaf.flags & ~(PS if leaf.size > 4096 else 0))
            for leaf in space
            if leaf.va < 1 << 47
            for at in range(0, leaf.size, 4096)
        }
        for space in spaces
    ]
    differing = {va for va in pages[0].keys() | pages[1].keys() if pages[0].get(va) != pages[1].get(va)}
    told = {c.va + at for c in changes if c.va < 1 << 47 for at in range(0, c.size, 4096)}
    assert told == differing
    assert differing


LAYOUT = """
preset = "arm64-4k-48"
[[memory]]
start = "0x40000000"
size = "16M"
[[spaces]]
name = "s"
"""


@pytest.mark.parametrize(
    ("preset", "changed", "differences"),
    [
        ("x86_64-4level", "", 0),
        ("arm64-4k-48", "", 0),
        ("x86_64-4level", ', rights = "r--"', 1),
        ("arm64-4k-48", ', rights = "r--"', 1),
        ("x86_64-4level", ", memory_type = 5", 1),  # PAT: bit 7 in a PTE, bit 12 in a PDE
        ("arm64-4k-48", ", memory_type = 3", 1),
    ],
)
def test_page_sizes_are_no_difference(tmp_path: Path, preset: str, changed: str, differences: int) -> None:
    sides = []
    for size, extra in (("2M", ""), ("4K", changed)):
        path = tmp_path / f"{size}.toml"
        path.write_text(
            f'preset = "{preset}"\nmemory = [{{ start = 0, size = "64M" }}]\n'
            f'spaces = [{{ name = "A", mappings = [{{ va = "40_0000", pa = "20_0000", size = "2M", page_size = "{size}"'
            f"{extra} }}] }}]"
        )
        machine = load(path)
        sides.append(list(leaves(machine.memory, machine.regime("A"))))
    assert [len(side) for side in sides] == [1, 512]
    assert len(list(diff(*sides))) == differences


def test_lint_names_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mappings = [
        {"va": "0x400000", "pa": "0x40800000", "size": "8K", "rights": "rwx"},
        {"va": "0x600000", "pa": "0x40900000", "size": "4K", "rights": "r--"},
    ]
    text = LAYOUT + "".join("[[spaces.mappings]]\n" + "".join(f'{k} = "{v}"\n' for k, v in m.items()) for m in mappings)
    path = tmp_path / "layout.toml"
    path.write_text(text)
    machine = load(path)
    rules = {f.rule: f for f in lint(machine.memory, machine.regime("s"))}
    assert set(rules) == {"w+x"}
    assert rules["w+x"].va == 0x400000
    assert "0x2000 bytes" in rules["w+x"].text
    assert run(["lint", str(path), "--process", "s"]) == 1
    assert "w+x" in capsys.readouterr().out


def _ram(tmp_path: Path, tables: dict[int, dict[int, int]]) -> Path:
    """A raw image with tables written word by word."""
    ram = bytearray(0x10_0000)
    for table, entries in tables.items():
        for index, entry in entries.items():
            struct.pack_into("<Q", ram, table + 8 * index, entry)
    path = tmp_path / "ram"
    path.write_bytes(ram)
    return path


def _built(
    tmp_path: Path, preset: str, tables: dict[int, dict[int, int]], registers: dict[str, int] | None = None
) -> dict[str, list[Finding]]:
    """What lint finds in such tables; the root is at 0x1000."""
    machine = load(_ram(tmp_path, tables), preset=preset, root=0x1000, registers=registers)
    found: dict[str, list[Finding]] = {}
    for finding in lint(machine.memory, machine.regime()):
        if finding.va < 1 << 48:  # a raw image's root is that of both halves
            found.setdefault(finding.rule, []).append(finding)
    return found


def test_lint_of_x86_tables_that_break_rules(tmp_path: Path) -> None:
    nx, uc, pd = 1 << 63, 0x18, 0x3000  # PWT and PCD: PAT entry 3, which is UC at reset (SDM volume 3A 13.12.4)
    pages = {0: 0x1000 | nx | uc | 7, 1: 0x2000 | nx | 7}
    found = _built(
        tmp_path,
        "x86_64-4level",
        {
            0x1000: {0: 0x2007},
            0x2000: {0: pd | 7},
            pd: {0: 0x4007, 1: nx | PS | 7, 2: 1 << 13 | nx | PS | 7, 3: 0x40_0000 | PS | 7},
            0x4000: pages,
        },
    )
    assert set(found) == {"dead-entry", "alias", "w+x"}
    (dead,), (alias,) = found["dead-entry"], found["alias"]
    assert dead.va == 0x40_0000  # bits 20:13 of a 2M page's entry are reserved (table 5-18)
    assert f"{pd + 16:#018x}" in dead.text
    assert alias.va == 0  # the UC page lies within the WB one of 2M
    assert "0x0000000000001000" in alias.text
    assert "0x0000000000201000" in alias.text
    assert {f.va for f in found["w+x"]} == {0x60_0000}


def test_lint_of_contiguous_sets_that_break_rules(tmp_path: Path) -> None:
    contiguous, page = 1 << 52, 0x60_0000_0000_0743 | 1 << 7  # XN for both, AF, inner shareable, read-only
    whole = {i: 0x4_0000 + 0x1000 * i | page | contiguous for i in range(16)}
    lacking = {16 + i: 0x5_0000 + 0x1000 * i | page | (contiguous if i != 5 else 0) for i in range(16)}
    shifted = {32 + i: 0x6_1000 + 0x1000 * i | page | contiguous for i in range(16)}
    gap = {48 + i: 0x8_0000 + 0x1000 * (i + (i > 7)) | page | contiguous for i in range(16)}
    tables = {0x1000: {0: 0x2003}, 0x2000: {0: 0x3003}, 0x3000: {0: 0x4003}}
    found = _built(tmp_path, "arm64-4k-48", tables | {0x4000: whole | lacking | shifted | gap})
    assert {rule: [f.va for f in rows] for rule, rows in found.items()} == {
        "contiguous-incomplete": [0x1_0000],
        "contiguous-broken": [0x2_0000, 0x3_0000],
    }
    assert "15 of 16" in found["contiguous-incomplete"][0].text


@pytest.mark.parametrize(("hardware_af", "aliases"), [(1, [0]), (0, [])])
def test_lint_of_memory_with_two_types(tmp_path: Path, hardware_af: int, aliases: list[int]) -> None:
    """AttrIndx 0 and 2 of one page, WB and NC in Linux's MAIR_EL1; the second has no Access flag, which TCR_EL1.HA
    lets the walker set and without HA no access gets past."""
    read_only = 0x60_0000_0000_03C3
    tables = {0x1000: {0: 0x2003}, 0x2000: {0: 0x3003}, 0x3000: {0: 0x4003}}
    pages = {0: 0x5000 | read_only | 1 << 10, 1: 0x5000 | read_only | 2 << 2}
    tcr = load(_ram(tmp_path, {}), preset="arm64-4k-48", root=0x1000).registers["TCR_EL1"]
    registers = {"TCR_EL1": tcr & ~(0b11 << 39) | hardware_af << 39}  # HA and HD
    found = _built(tmp_path, "arm64-4k-48", tables | {0x4000: pages}, registers)
    assert [f.va for f in found.get("alias", [])] == aliases


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--pa", "1000", "--pa: not of the form START-END or START+SIZE"),
        ("--size", "4Q", "size: not a size such as 4K"),
        ("--rights", "z", "--rights: letters of rwx"),
    ],
)
def test_bad_filters_end_in_one_sentence(
    capsys: pytest.CaptureFixture[str], option: str, value: str, sentence: str
) -> None:
    assert run(["maps", str(X86), "--process", "A", option, value]) == 2
    assert sentence in capsys.readouterr().err


ARM64 = CAPTURES / "arm64-deb7.3-4k-lpa2.tar.xz"


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 3), (3, 4), (4, 5)])
def test_break_before_make_between_checkpoints(first: int, second: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the two lists of leaves: pages that moved, and blocks that became tables (or the other way)."""
    sides = [load(ARM64, checkpoint=n) for n in (first, second)]
    found = [{leaf.va: leaf for leaf in leaves(m.memory, m.regime("A"))} for m in sides]
    moved = {va for va, leaf in found[0].items() if va in found[1] and _moved(leaf, found[1][va])}
    resized = {
        va
        for one, two in (found, found[::-1])
        for va, leaf in one.items()
        if leaf.size > 4096
        and va not in moved
        and any(two[at].size < leaf.size for at in range(va, va + leaf.size, 4096) if at in two)
    }
    status = run(
        ["lint", str(ARM64), "--process", "A", "--checkpoint", str(first), "--later-checkpoint", str(second), "--json"]
    )
    rows = json.loads(capsys.readouterr().out)["findings"]
    assert {int(row["va"], 16) for row in rows if "output address" in row["text"]} == moved
    assert {int(row["va"], 16) for row in rows if "size of the translation" in row["text"]} == resized
    assert status == (1 if rows else 0)
    assert (first == 2) <= bool(moved and resized), "fork, a write fault and a split lie between 2 and 3"


def _moved(one: Leaf, two: Leaf) -> bool:
    return one.size == two.size and one.pa != two.pa


def test_break_before_make_asks_for_two_of_arm64(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", str(X86), "--process", "A", "--checkpoint", "2", "--later-checkpoint", "3"]) == 2
    assert "break-before-make is a rule of arm64" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [1, 3])
def test_a_pagemap_that_was_captured_in_part(tmp_path: Path, missing: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The capturing tool stops early in a large area: what is there is compared, what is not is counted."""
    files = only(files_of(SMALL), 5)
    index = json.loads(files["cp5/A.pagemap.json"])
    nth = max(range(len(index)), key=lambda n: index[n][3])
    index[nth][3] -= missing
    folder = write_directory(files | {"cp5/A.pagemap.json": json.dumps(index).encode()}, tmp_path / "cut")
    assert run(["verify", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"note: checkpoint 5, A: pagemap was captured only in part, {missing} pages are not compared" in out
    index[nth][3] += missing + 1
    (folder / "cp5" / "A.pagemap.json").write_text(json.dumps(index))
    assert run(["verify", str(folder)]) == 2
    assert "the entries do not fit the area or the file" in capsys.readouterr().err
