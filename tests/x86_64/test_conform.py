"""The golden vectors: 1,000 cases of each group in the repository (500 of the nested ones), all fields, both engines.

The full public files (91,000 cases) agree as well, run with `ptwalk conform` on 2026-11-23.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptwalk.arch.errors import InputError
from ptwalk.mmu.x86_64.cases import COLUMNS
from ptwalk.mmu.x86_64.conform import conform

DATA = Path(__file__).parents[1] / "data" / "x86_64"
CASES = {
    "long4": 1000, "long5": 1000, "pku": 1000, "pks": 1000, "implicit": 1000, "pae": 1000, "legacy32": 1000,
    "npt": 500, "npt32": 500, "cet_ss": 1000,
}  # fmt: skip


@pytest.mark.parametrize("group", CASES)
def test_every_field_of_every_case_agrees(group: str) -> None:
    report = conform(DATA / f"{group}.npz")
    assert report.ok, report.text()
    for engine in ("reference", "kernel"):
        tallies = report.fields[engine]
        assert set(tallies) == {*COLUMNS, "upd"}
        assert all(tallies[name].compared == CASES[group] for name in COLUMNS)
        assert tallies["upd"].compared == tallies["upd"].agreed > CASES[group] // 4


@pytest.mark.parametrize("column", ["o_pa", "o_vec", "o_err", "o_cause", "o_level"])
def test_a_wrong_expectation_is_found_and_described(tmp_path: Path, column: str) -> None:
    arrays = _arrays("long4")
    fault = column in ("o_err", "o_cause")
    chosen = np.flatnonzero((arrays["o_vec"] == 14) if fault else (arrays["o_vec"] == 255))[0]
    arrays[column][chosen] ^= 1
    arrays["o_err_alt"][chosen] = arrays["o_err"][chosen]
    path = tmp_path / "changed.npz"
    np.savez_compressed(path, **arrays)
    report = conform(path)
    assert not report.ok
    for engine in ("reference", "kernel"):
        assert report.fields[engine][column].agreed == CASES["long4"] - 1
        assert report.disagreements[engine][0].startswith(f"case {chosen} ({engine}): {column} is")


def _arrays(group: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{group}.npz", allow_pickle=False) as archive:
        return {name: archive[name].copy() for name in archive.files}


SMALL = {name: array[:3] for name, array in _arrays("long4").items() if not name.startswith(("mem", "upd"))}
SMALL |= {
    key: value
    for name in ("mem", "upd")
    for key, value in {
        f"{name}_off": _arrays("long4")[f"{name}_off"][:4],
        f"{name}_pa": _arrays("long4")[f"{name}_pa"][: int(_arrays("long4")[f"{name}_off"][3])],
        f"{name}_val": _arrays("long4")[f"{name}_val"][: int(_arrays("long4")[f"{name}_off"][3])],
    }.items()
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=st.sampled_from(sorted(SMALL)),
    change=st.sampled_from(["drop", "cut", "float", "shape", "value"]),
    value=st.integers(0, 255),
)
def test_hostile_files_end_in_one_sentence(tmp_path: Path, name: str, change: str, value: int) -> None:
    arrays = dict(SMALL)
    if change == "drop":
        del arrays[name]
    elif change == "cut":
        arrays[name] = arrays[name][:-1]
    elif change == "float":
        arrays[name] = arrays[name].astype(float)
    elif change == "shape":
        arrays[name] = arrays[name].reshape(1, -1)
    else:
        arrays[name] = np.full_like(arrays[name], value % 128)
    path = tmp_path / "hostile.npz"
    np.savez(path, **arrays)
    with suppress(InputError):  # anything else that comes out fails the test
        conform(path, engines=("reference",))
    path.write_bytes(path.read_bytes()[: 4 * value])
    with pytest.raises(InputError, match=r"hostile\.npz"):
        conform(path)
