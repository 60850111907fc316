"""Arm's golden vectors: 400 cases of each group in the repository, 100% of the fields by both engines."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptwalk.arch.errors import InputError
from ptwalk.mmu.arm64.conform import conform

DATA = Path(__file__).parents[1] / "data" / "arm64"
GROUPS = sorted(path.stem for path in DATA.glob("*.npz"))
CASES = 400
IN_KERNEL = {
    "s1_4k", "s1_16k", "s1_64k", "lpa2_4k", "lpa2_16k", "lva_64k", "ttst", "hafdbs", "pan_epan_e0pd_wxn",
    "hpd_aptable", "contiguous", "s2_4k", "s2_16k", "s2_64k",
}  # fmt: skip


def test_all_groups_are_here() -> None:
    assert len(GROUPS) == 25
    assert set(GROUPS) >= IN_KERNEL


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_of_every_case_agrees(group: str) -> None:
    report = conform(DATA / f"{group}.npz")
    assert report.ok, report.text()
    reference = report.fields["reference"]
    assert len(reference) == 53
    assert all((tally.agreed, tally.compared) == (CASES, CASES) for tally in reference.values())
    taken = report.fields.get("kernel", {}).get("upd")
    assert (taken is not None and taken.compared == CASES) or "FEAT_" in report.refused["kernel"], "named, not dropped"
    if group in IN_KERNEL:
        assert not report.refused
        assert len(report.fields["kernel"]) == 53


def test_a_wrong_expectation_is_found_and_described(tmp_path: Path) -> None:
    with np.load(DATA / "s1_4k.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    ok = np.flatnonzero(arrays["o_fault"] == 0)[0]
    arrays["o_pa"][ok] ^= np.uint64(0x1000)
    changed = tmp_path / "changed.npz"
    np.savez_compressed(changed, **arrays)
    report = conform(changed)
    assert not report.ok
    for name in ("reference", "kernel"):
        tally = report.fields[name]["o_pa"]
        assert (tally.agreed, tally.compared) == (CASES - 1, CASES)
        assert report.disagreements[name][0].startswith(f"case {ok} ({name})")
    assert "o_pa" in report.text()


def _mutated(arrays: dict[str, np.ndarray], name: str, value: int, cut: int) -> dict[str, np.ndarray]:
    changed = dict(arrays)
    if cut == 0:
        del changed[name]
    elif cut == 1:
        changed[name] = changed[name][:-1]
    elif cut == 2:
        changed[name] = changed[name].astype(np.float64)
    else:
        array = changed[name].copy()
        flat = array.reshape(-1)
        if len(flat):
            low, high = (np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
            flat[value % len(flat)] = max(low, min(high, value))
        changed[name] = array
    return changed


with np.load(DATA / "s2_4k.npz", allow_pickle=False) as _archive:
    SMALL = {
        name: _archive[name][: 21 if name.endswith("_off") else 20] if not name.startswith(("mem_", "upd_"))
        or name.endswith("_off") else _archive[name][: int(_archive[f"{name[:3]}_off"][20])]
        for name in _archive.files
    }  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(SMALL)),
    value=st.integers(-(2**63), 2**64 - 1),
    cut=st.integers(0, 6),
)
def test_hostile_vector_files_end_in_a_report_or_an_input_error(
    tmp_path: Path, name: str, value: int, cut: int
) -> None:
    path = tmp_path / "hostile.npz"
    np.savez(path, **_mutated(SMALL, name, value, cut))
    with contextlib.suppress(InputError):
        conform(path, engines=("reference",))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x93NUMPY\x01\x00", b"not a zip at all"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.npz"):
        conform(path)


def test_truncated_archives_are_refused(tmp_path: Path) -> None:
    whole = (DATA / "ttst.npz").read_bytes()
    path = tmp_path / "cut.npz"
    for size in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            conform(path, engines=("reference",))


def test_unknown_profiles_are_refused() -> None:
    with pytest.raises(InputError, match="no such profile"):
        conform(DATA / "ttst.npz", profile="z80")
