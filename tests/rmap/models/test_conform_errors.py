"""Vector files that cannot be run give one sentence with file and line."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.rmap.conform import conform

GOOD: dict[str, Any] = {
    "id": "x0",
    "model": "P",
    "folios": [[2, "file", 0]],
    "locked": [],
    "steps": [
        {"op": ["add", 0, 1, "pte", 0, 4, 0], "ret": 0, "st": [{"f": 0, "mc": 4}], "nr": [0, 4, 0, 0, 0]},
        {"op": ["exit", 1], "calls": [["rem", 0, 1, "pte", 0, 4, 0]], "st": [], "nr": [0, 0, 0, 0, 0]},
    ],
}


def changed(**parts: Any) -> str:
    return json.dumps(GOOD | parts)


def step(*op: Any, **parts: Any) -> str:
    return changed(steps=[{"op": list(op), "st": [], **parts}])


def test_the_unchanged_sequence_agrees(tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n")
    assert str(conform(path)) == f"{path}: 1 sequences, 2 steps, 7 values, all agree"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: not a JSON object"),
        ("[" * 100000, "line 1: not JSON"),
        ("", "no sequence in the file"),
        ("{}", "line 1: not a sequence of rmap vectors"),
        (changed(model="Q"), "line 1: unknown model 'Q'"),
        (changed(word=16), "line 1: unknown model 'P' or word size 16"),
        (changed(folios=[[60, "file", 0]]), "order 60 outside 0..22"),
        (changed(folios=[[2, "slab", 0]]), "unknown kind 'slab'"),
        (step("melt", 0), "line 1: unknown operation 'melt'"),
        (step("add", 0, 1, "pgd", 0, 4, 0), "neither a number nor a level"),
        (step("add", 0, -1, "pte", 0, 4, 0), "neither a number nor a level"),
        (step("add", 0, 1), "line 1: not a sequence of rmap vectors (TypeError"),
        (step("add", 7, 1, "pte", 0, 4, 0), "line 1: not a sequence of rmap vectors (IndexError"),
        (step("rem", 0, 1, "pte", 3, 9), "line 1: not a sequence of rmap vectors (IndexError"),
    ],
)
def test_malformed_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        conform(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_second_line_has_its_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + "nonsense\n")
    with pytest.raises(InputError, match="line 2: not JSON"):
        conform(path)


def test_cut_and_damaged_xz(tmp_path: Path) -> None:
    packed = lzma.compress((json.dumps(GOOD) + "\n").encode() * 200)
    path = tmp_path / "cut.jsonl.xz"
    for damaged in (packed[: len(packed) // 2], packed[:8] + b"\xff" * 40 + packed[48:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or cut xz data"):
            conform(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        conform(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"op": ["add", 0, 1, "pte", 0, 4, 0], "reject": 1, "st": []}], "reject is 0"),
        ([{"op": ["rem", 0, 1, "pte", 0, 4], "st": []}], "does not map pages 0..3"),
        ([{"op": ["add", 0, 1, "pmd", 0, 4, 0], "st": []}], "reject is 1"),
        ([{"op": ["add", 0, 1, "pte", 0, 4, 0], "st": []}], "step 1 free"),
        ([{"op": ["pin", 0, 1, 1], "st": [{"f": 0, "bogus": 3}]}], "folio 0 bogus is None, expected 3"),
    ],
)
def test_wrong_expectations_are_differences(steps: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(changed(steps=steps))
    report = conform(path)
    assert not report.ok
    assert report.failed_sequences == 1
    assert message in str(report)
