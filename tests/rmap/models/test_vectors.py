"""The models against sequences recorded from the kernel's own functions (tests/data/rmap)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.conform import MODEL_NAMES, SequenceRunner, conform, folio_state, read_sequences
from ptwalk.rmap.levels import Rules

DATA = Path(__file__).parents[2] / "data" / "rmap"
FILES = {
    "P": (225, 7794, 127144),
    "N": (225, 7794, 111348),
    "T": (225, 7832, 120074),
    "P32": (30, 2193, 28509),
    "N32": (30, 2193, 24123),
    "T32": (30, 2193, 26316),
}
"""Sequences, steps and values that each file holds; all of them must agree."""


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_value_agrees(name: str) -> None:
    report = conform(DATA / f"rmap_{name}.jsonl.xz")
    assert report.ok, str(report)
    assert (report.sequences, report.steps, report.values) == FILES[name]


def sequences(name: str) -> dict[str, dict[str, Any]]:
    return {sequence["id"]: sequence for _, sequence in read_sequences(DATA / f"rmap_{name}.jsonl.xz")}


def test_the_kernel_warned_about_nothing_the_models_warn_about() -> None:
    """The recordings come from kernels with their assertions on: no exclusive-mark warning may appear."""
    for name in ("P", "N", "T"):
        for sequence in sequences(name).values():
            runner = SequenceRunner(sequence)
            for step in sequence["steps"]:
                runner.step(step)
            assert runner.acct.warnings == []


@pytest.mark.parametrize("driver", MODEL_NAMES)
def test_three_models_side_by_side_equal_three_recordings(driver: str) -> None:
    """Class C is recorded under each model: one accounting of all three must show all three at every step."""
    files = {letter: sequences(letter) for letter in MODEL_NAMES}
    common = [key for key in files[driver] if key[1] == "C" and all(key in other for other in files.values())]
    assert len(common) == 150
    for key in common:
        runner = SequenceRunner(files[driver][key])
        acct = Accounting(MODEL_NAMES.values(), driver=MODEL_NAMES[driver], rules=Rules(literal=True))
        runner.acct = runner.stream.acct = acct
        runner.stream.folios = [runner._folio(*entry) for entry in files[driver][key]["folios"]]
        for number, step in enumerate(files[driver][key]["steps"]):
            runner.step(step)
            for letter, name in MODEL_NAMES.items():
                want = files[letter][key]["steps"][number]
                for state in want["st"]:
                    got = folio_state(runner.stream.folios[state["f"]], acct.models[name])
                    assert {k: got[k] for k in state if k != "f"} == {k: v for k, v in state.items() if k != "f"}
                stats = acct.models[name].stats
                assert [stats.nr, list(stats.mthp()), [stats.mlock, stats.munlock]] == [
                    want["nr"],
                    want["mthp"],
                    want["ml"],
                ]


@pytest.mark.parametrize("letter", ["P", "N", "T"])
def test_a_falsified_value_is_named(letter: str, tmp_path: Path) -> None:
    sequence = next(s for s in sequences(letter).values() if len(s["steps"]) > 8)
    state = next(st for st in sequence["steps"][6]["st"])
    state["mc"] += 1
    path = tmp_path / "falsified.jsonl"
    path.write_text(json.dumps(sequence) + "\n")
    difference = conform(path).difference
    assert difference is not None
    assert (difference.sequence, difference.step, difference.field) == (sequence["id"], 6, f"folio {state['f']} mc")
    assert (difference.got, difference.want) == (state["mc"] - 1, state["mc"])
