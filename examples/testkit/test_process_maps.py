"""Tests of processes' page tables against what their kernels said of their memory: /proc/PID/maps, in every capture.

A page may lack a right that its area grants (it is shared, or was never written); it must not have more.
"""

from __future__ import annotations

import bisect
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ptwalk.mmu.machine import Machine
from ptwalk.mmu.spaces import leaves
from ptwalk.mmu.walk import Rights
from ptwalk.testing import assert_faults

CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("*.tar.xz"))
CHECKPOINT, PROCESSES = 5, ("A", "B", "C")
USER = Rights.UR | Rights.UW | Rights.UX


class Area(NamedTuple):
    """A line of /proc/PID/maps."""

    start: int
    end: int
    rights: str


def areas(capture: Path, process: str) -> list[Area]:
    """The areas of a process, ascending."""
    with tarfile.open(capture) as tar:
        name = next(name for name in tar.getnames() if name.endswith(f"/cp{CHECKPOINT}/proc/{process}/maps"))
        file = tar.extractfile(name)
        assert file
        found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (\S{3})", file.read().decode(), re.MULTILINE)
    return sorted(Area(int(start, 16), int(end, 16), rights) for start, end, rights in found)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_no_page_grants_more_than_its_area(ptwalk_machine: Callable[..., Machine], capture: Path) -> None:
    machine = ptwalk_machine(capture, checkpoint=CHECKPOINT)
    for process in PROCESSES:
        listed = areas(capture, process)
        pages = [leaf for leaf in leaves(machine.memory, machine.regime(process)) if leaf.rights & USER]
        assert len(pages) > 1000
        for page in pages:
            area = listed[bisect.bisect(listed, (page.va + 1,)) - 1]
            assert area.start <= page.va < page.va + page.size <= area.end, f"{page.va:#018x} lies in no area"
            if area.rights[1] == "-" and page.rights & Rights.UW:
                assert_faults(machine, page.va, space=process, access="write")  # it does not, and says why
            if area.rights[2] == "-" and page.rights & Rights.UX:
                assert_faults(machine, page.va, space=process, access="execute")
