"""The commands as a user runs them: output, JSON, exit codes, and what they must not import."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ptwalk.cli import run

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
X86, ARM64 = CAPTURES / "x86_64-7.3.4-P.tar.xz", CAPTURES / "arm64-deb7.3-4k-lpa2.tar.xz"


def _json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    code = run([*map(str, arguments), "--json"])
    shape: dict[str, object] = json.loads(capsys.readouterr().out)
    return {**shape, "exit": code}


@pytest.mark.parametrize(("capture", "frame", "levels"), [(X86, 0x1204E, 4), (ARM64, 0x59E6F, 5)])
def test_walk_agrees_with_the_pagemap_of_the_capture(
    capsys: pytest.CaptureFixture[str], capture: Path, frame: int, levels: int
) -> None:
    """Process A's page at 4 GiB: the frame is what that kernel's /proc/PID/pagemap said at checkpoint 5."""
    shape = _json(capsys, "walk", capture, "0x1_0000_0000", "--process", "A")
    assert shape["exit"] == 0
    assert shape["fault"] is None
    assert isinstance(shape["translation"], dict)
    assert shape["translation"]["pa"] == hex(frame << 12)
    assert isinstance(shape["steps"], list)
    assert len(shape["steps"]) == levels


@pytest.mark.parametrize("capture", [X86, ARM64])
def test_walk_of_nothing_is_a_negative_answer(capsys: pytest.CaptureFixture[str], capture: Path) -> None:
    shape = _json(capsys, "walk", capture, "1000", "--process", "A", "--access", "write")
    assert shape["exit"] == 1
    assert shape["translation"] is None
    assert shape["linux"] == "none"


def test_info_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    shape = _json(capsys, "info", ARM64)
    assert shape["arch"] == "arm64"
    spaces = shape["spaces"]
    assert isinstance(spaces, list)
    assert {"A", "B", "C", "ctl"} <= {space["name"] for space in spaces}
    assert all(int(space["registers"]["TTBR0_EL1"], 16) % 4096 for space in spaces), "LPA2 roots are not page-aligned"


def test_maps_lists_each_page_once(capsys: pytest.CaptureFixture[str]) -> None:
    shape = _json(capsys, "maps", X86, "--process", "A")
    ranges = shape["ranges"]
    assert isinstance(ranges, list)
    edges = [(int(r["va_start"], 16), int(r["va_end"], 16)) for r in ranges]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(edges))
    assert run(["maps", str(X86), "--process", "A", "--jsonl"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ranges


def test_decode_shows_every_bit(capsys: pytest.CaptureFixture[str]) -> None:
    shape = _json(capsys, "decode", "PTE", "0x800000001204e867")
    fields = shape["fields"]
    assert isinstance(fields, list)
    assert sum(int(f["value"], 16) << f["shift"] for f in fields) == 0x800000001204E867
    assert run(["decode", "pte", "67"]) == 0
    assert "RW = 1" in capsys.readouterr().out
    assert run(["decode", "--list"]) == 0
    assert "arm64:TCR_EL1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["walk", X86, "xyz", "--process", "A"], "VA: not a 64-bit hexadecimal address ('xyz')"),
        (["walk", X86, "0x1000", "--process", "Z"], "process: no address space of this name (there are: "),
        (["walk", X86, "0x1000", "--process", "A", "--root", "0x1000"], "give either --process or --root, not both"),
        (["walk", "/does/not/exist", "0x1000"], "/does/not/exist"),
        (["info", X86, "--checkpoint", "9"], "no such checkpoint"),
        (["info", X86, "--register", "CR3"], "--register: not of the form NAME=HEX"),
        (["decode", "PTF", "0"], "no entry or register kind of this name; near:"),
        (["decode", "PTE", "0x1_0000_0000_0000_0000"], "VALUE: does not fit 64 bits"),
        (["frobnicate"], "frobnicate"),
        (["walk", X86], "VA"),
        (["rmap", "run"], "SCENARIO requires an argument. (see ptwalk rmap run --help)"),
        (["wlak"], 'Did you mean "walk"?'),
    ],
)
def test_bad_requests_end_in_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[object], sentence: str
) -> None:
    assert run(list(map(str, arguments))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("ptwalk: ")
    assert err.count("\n") == 1


def test_a_single_walk_imports_neither_numba_nor_numpy() -> None:
    code = (
        "import sys; from ptwalk.cli import run\n"
        f"for a in (['walk', {str(X86)!r}, '0x100000000', '--process', 'A'], ['decode', 'CR4', '20'], ['--help']):\n"
        "    run(a)\n"
        "sys.exit(sum(name in sys.modules for name in ('numba', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4K page" in done.stdout
