"""What QEMU 7.2, unicorn 2.1.4 and Bochs 2.7 really answered: their profiles have to give every raw answer.

The repository holds 60 to 100 cases of each group in which an emulator leaves the architecture, and half as many plain
ones; the full public files (91,000 cases, 172,418 raw answers) agree as well, run on 2026-11-23.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptwalk.arch.errors import InputError
from ptwalk.mmu.x86_64.conform import conform
from ptwalk.mmu.x86_64.emulators import ANSWERS, NOT_RUN

DATA = Path(__file__).parents[1] / "data" / "x86_64"
GROUPS = ("long4", "long5", "pku", "pks", "implicit", "pae", "legacy32", "npt", "npt32", "cet_ss")
RAN = {
    "qemu-7.2": set(GROUPS) - {"cet_ss"},
    "unicorn-2.1.4": {"long4", "long5", "pku", "pks", "pae", "legacy32"},
    "bochs-2.7": set(GROUPS) - {"long5", "pks"},
}


@pytest.mark.parametrize("profile", ANSWERS)
@pytest.mark.parametrize("group", GROUPS)
def test_a_profile_gives_every_raw_answer(group: str, profile: str) -> None:
    path = DATA / f"answers_{group}.npz"
    if group not in RAN[profile]:
        with pytest.raises(InputError, match="ran none"):
            conform(path, profile)
        return
    report = conform(path, profile)
    assert report.ok, report.text()
    with np.load(path, allow_pickle=False) as archive:
        ran = int((archive["r_vec"][:, ANSWERS[profile][0]] != NOT_RUN).sum())
    assert report.fields["reference"]["r_vec"].compared == ran > 10


@pytest.mark.parametrize(("group", "profile"), [("long4", "qemu-7.2"), ("pku", "bochs-2.7"), ("pae", "qemu-7.2")])
def test_the_architecture_does_not_give_them(group: str, profile: str, tmp_path: Path) -> None:
    with np.load(DATA / f"answers_{group}.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    column = ANSWERS[profile][0]
    other = next(i for i in range(3) if i != column and (arrays["r_vec"][:, i] != NOT_RUN).any())
    for name in ("r_vec", "r_err"):  # another emulator's answers
        arrays[name][:, column] = arrays[name][:, other]
    path = tmp_path / "mixed.npz"
    np.savez_compressed(path, **arrays)
    report = conform(path, profile)
    assert not report.ok
    assert report.disagreements["reference"]
