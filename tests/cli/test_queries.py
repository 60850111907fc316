"""Questions about whole spaces: reverse lookups, filters, differences, lint, other tools' listings."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import pytest

from ptwalk.cli import run
from ptwalk.loaders import load
from ptwalk.mmu.spaces import leaves
from ptwalk.mmu.walk import Rights
from ptwalk.queries import Filter, diff, lint

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
