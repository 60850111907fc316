"""kvm-unit-tests' access space: a sample in every run, the whole by `python -m ptwalk.mmu.x86_64.access_space`."""

from __future__ import annotations

import pytest

from ptwalk.mmu.x86_64 import access_space
from ptwalk.mmu.x86_64.access_space import Tables, attempts, main, run

# The size of the legal space by MAXPHYADDR, counted by a program of its own (spec: 4.1, x86/access.c at 1da1819e).
SIZES = {36: 28_999_680, 40: 19_169_280, 52: 9_338_880}


@pytest.mark.parametrize("maxphyaddr", SIZES)
def test_the_filter_leaves_as_many_combinations_as_the_original(maxphyaddr: int) -> None:
    count = sum(len(Tables.legal(nxe, maxphyaddr)) * len(list(attempts(nxe))) for nxe in (False, True))
    assert count == SIZES[maxphyaddr]


@pytest.mark.parametrize(("levels", "maxphyaddr"), [(4, 36), (5, 36), (4, 40), (5, 52)])
def test_a_sample_of_the_space_agrees(levels: int, maxphyaddr: int) -> None:
    report = run(levels, maxphyaddr, stride=101)
    assert not report.disagreements
    assert report.combinations > 90_000
    assert report.combinations // 50 < report.faults < report.combinations


def test_a_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(access_space._BITS, "bit 36", 1 << 37)
    assert main(["--stride", "997"]) == 0  # bit 37 is reserved as well
    monkeypatch.setitem(access_space._BITS, "bit 36", 1 << 35)
    assert main(["--stride", "997"]) == 1
    assert "expected code" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("levels", [4, 5])
def test_the_whole_space_agrees(levels: int) -> None:
    report = run(levels)
    assert (report.combinations, report.disagreed) == (SIZES[36], 0)
