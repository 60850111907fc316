"""smaps, smaps_rollup and numa_maps, byte for byte as real kernels printed them."""

from __future__ import annotations

import pytest
from verified_captures import NEW_ARM, OLD_ARM, OLD_X86, N, P, adopted

from ptwalk.rmap.views import meminfo, numa_maps, smaps
from ptwalk.rmap_verify.adopted import Adopted

MODEL = {N: "no-page-mapcount"}
CASES = [(P, 2), (P, 3), (N, 2), (N, 3), (OLD_X86, 3), (OLD_ARM, 5), (NEW_ARM, 2)]


def kernel_text(one: Adopted, tag: str, name: str) -> str:
    return one.checkpoint.text(f"proc/{tag}/{name}")


@pytest.mark.parametrize(("name", "checkpoint"), CASES)
def test_whole_files(name: str, checkpoint: int) -> None:
    one = adopted(name, checkpoint)
    model, rules = one.model(MODEL.get(name, "precise")), one.kernel.rules
    for process in one.processes:
        ours = smaps.text(process, one.frames, model, rules)
        assert ours.splitlines() == user_part(kernel_text(one, process.name, "smaps"))
        assert numa_maps.text(process, one.frames, model) == kernel_text(one, process.name, "numa_maps")
        rollup = smaps.rollup_text(process, one.frames, model, rules)
        assert rollup == kernel_text(one, process.name, "smaps_rollup")


def user_part(text: str) -> list[str]:
    """The records without x86's vsyscall page, which lies in the kernel's half."""
    lines = text.splitlines()
    cut = next((i for i, line in enumerate(lines) if line.endswith("[vsyscall]")), len(lines))
    return lines[:cut]


def test_meminfo_lines() -> None:
    one = adopted(P, 2)
    theirs = one.checkpoint.text("proc/meminfo").splitlines()
    ours = meminfo.text(one.model("precise")).splitlines()
    assert len(ours) == 5
    assert set(ours) <= set(theirs)
