"""`ptwalk conform`: verdicts, exit codes, and vector files written from a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptwalk.cli import run

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("name", ["x86_64/npt32", "arm64/hafdbs"])
def test_written_vectors_equal_the_recorded_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """Cases without answers, answered by our walker, hold the very answers of the recording."""
    out = tmp_path / "ours.npz"
    source = DATA / f"{name}.npz"
    assert run(["conform", str(source), "--write", str(out)]) == 0
    with np.load(source) as theirs, np.load(out) as ours:
        columns = [key for key in theirs.files if key.startswith("o_") and key in ours.files]
        assert len(columns) >= 9
        for key in columns:
            same = ours[key].astype(np.int64) == theirs[key].astype(np.int64)
            assert same.all() or key in ("o_err", "o_npf_info1"), key
    assert run(["conform", str(out)]) == 0
    assert run(["conform", str(source), "--write", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_exit_codes_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = DATA / "x86_64" / "legacy32.npz"
    assert run(["conform", str(source), "--json"]) == 0
    shape = json.loads(capsys.readouterr().out)
    assert shape["ok"]
    assert shape["fields"]["kernel"]["o_pa"] == {"agreed": 1000, "compared": 1000}
    with np.load(source) as archive:
        arrays = {key: archive[key].copy() for key in archive.files}
    arrays["o_vec"][0] ^= 1
    bad = tmp_path / "bad.npz"
    np.savez(bad, **arrays)
    assert run(["conform", str(bad)]) == 1
    assert "case 0" in capsys.readouterr().out
    assert run(["conform", str(source), "--profile", "vax"]) == 2
    assert "no such profile" in capsys.readouterr().err
    assert run(["conform", __file__]) == 2
