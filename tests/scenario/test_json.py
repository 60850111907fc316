"""The JSON shapes of `rmap run` and `rmap diff`, and what the options do."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from ptwalk.cli import run
from ptwalk.rmap.models import MODELS, TotalMappedPages
from ptwalk.scenario.changes import CHANGES, explain
from ptwalk.scenario.runner import run as run_scenario
from ptwalk.scenario.snapshot import FolioShown, Snapshot

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "examples" / "scenarios"
VECTORS = ROOT / "tests" / "data" / "rmap"


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["rmap", *arguments, "--json"]) == 0
    shape: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shape


def test_run(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ask(capsys, "run", str(SCENARIOS / "v08.scn"))
    assert list(shape) == ["scenario", "arch", "bits", "literal", "limits", "models", "steps"]
    assert shape["models"] == list(MODELS)
    last = shape["steps"][-1]
    assert (last["line"], last["step"]) == (6, "munmap A v 0..255")
    folio = last["folios"]["F"]
    assert folio["mapped"] == {
        "A": [{"level": "PTE", "first": 256, "pages": 256}],
        "B": [{"level": "PMD", "first": 0, "pages": 512}],
    }
    assert folio["models"]["precise"]["nr_pages_mapped"] == "EM+256"
    assert last["processes"]["B"]["precise"]["Private_Dirty"] == 1024
    assert last["system"]["total-mapped-pages"]["AnonPages"] == 2048
    assert {one["change"] for one in last["differences"]} == {2, 3, 4, 5, 6}


def test_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ask(capsys, "run", str(SCENARIOS / "v15.scn"), "--model", "precise")
    last = shape["steps"][-1]
    assert shape["models"] == ["precise"]
    assert list(last["folios"]["F"]["refused"]) == ["precise"]
    assert last["processes"] == {"A": {}}
    assert [one["model"] for one in last["refusals"]] == ["precise"]
    assert last["differences"] == []


def test_diff(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ask(capsys, "diff", str(SCENARIOS / "change-7-partial.scn"))
    assert shape["unexplained"] == 0
    found = {(one["figure"], one["change"]) for step in shape["steps"] for one in step["differences"]}
    assert {("partially mapped", 7), ("AnonPages", 1), ("mapmax", 2), ("kpagecount", 4), ("Pss", 5)} <= found
    assert {change for _, change in found} <= set(CHANGES)


def test_literal_keeps_the_slips(capsys: pytest.CaptureFixture[str]) -> None:
    """Posted, a PMD counts with the size of its folio; scenarios.json has what was meant."""
    path = str(SCENARIOS / "v15.scn")
    meant, literal = ask(capsys, "run", path), ask(capsys, "run", path, "--literal")
    rss = [shape["steps"][-1]["processes"]["A"]["total-mapped-pages"]["Rss"] for shape in (meant, literal)]
    assert rss == [2048, 4096]


def test_literal_miscounts_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Mainline takes a new folio above the PMD's order for one entire mapping; the recount says so."""
    shape = ask(capsys, "run", str(SCENARIOS / "v14.scn"), "--literal")
    assert any("mapcount is 1, recounted 2" in sentence for sentence in shape["steps"][-1]["miscounted"])


def test_what_nothing_explains_is_said() -> None:
    """A difference of a figure that no change moves, and one whose rule does not fit the mappings."""
    story = run_scenario(SCENARIOS / "v01.scn")
    good = story.steps[-1].snapshot
    folio = good.folios["F"]
    columns = {model: dict(column) for model, column in folio.models.items()}
    columns["precise"]["mapcount"] = 7
    columns["precise"]["kpagecount"] = "3"
    bent = FolioShown(folio.order, folio.kind, folio.pfn, 1, 1, folio.mapped, columns)
    found = explain(Snapshot({"F": bent}, good.processes, good.system, {}), list(MODELS), False)
    assert [(one.figure, one.label) for one in found] == [("mapcount", "UNEXPLAINED"), ("kpagecount", "UNEXPLAINED")]


def test_refusals_are_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rmap", "run", str(SCENARIOS / "spans-pmds.scn"), "--model", "no-page-mapcount"]) == 0
    out = capsys.readouterr().out
    assert "  no-page-mapcount leaves S: a PMD maps only a folio of 512 pages" in out
    assert "precise" not in out


def test_conform(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["rmap", "conform", str(VECTORS / "rmap_T32.jsonl.xz")]) == 0
    assert "all agree" in capsys.readouterr().out
    with lzma.open(VECTORS / "rmap_T.jsonl.xz", "rt") as lines:
        sequence = json.loads(next(lines))
    sequence["steps"][0]["nr"][0] += 1
    path = tmp_path / "lie.jsonl"
    path.write_text(json.dumps(sequence))
    assert run(["rmap", "conform", str(path)]) == 1
    assert f"first: {sequence['id']} step 0 " in capsys.readouterr().out


def test_explore(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rmap", "explore", "--depth", "2", "--max-states", "50"]) == 0
    assert capsys.readouterr().out.startswith("depth ")
    assert run(["rmap", "explore", "--order", "9"]) == 2


def test_a_recount_that_fails_is_a_negative_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TotalMappedPages, "_count", lambda self, folio, level, n: abs(n) >> 9 * level)
    assert run(["rmap", "run", str(SCENARIOS / "v01.scn")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "recount" in err
    assert "total mapped pages is 0, recounted 512" in err


@pytest.mark.parametrize("bad", [["--model", "vax"], ["--unknown"], []])
def test_usage(bad: list[str]) -> None:
    assert run(["rmap", "run", *([str(SCENARIOS / "v01.scn")] if bad else []), *bad]) == 2
