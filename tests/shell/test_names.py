"""The prompt's namespace: live entries, words that are assigned to, names that stay, another file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.shell import EXAMPLE, Session
from ptwalk.shell.names import Names
from ptwalk.shell.walked import Difference

ARM64 = Path(__file__).parents[2] / "examples/layouts/arm64.toml"


@pytest.fixture
def names() -> Names:
    return Names(Session.open(EXAMPLE))


def run(names: Names, text: str) -> None:
    exec(text, names)


def test_entries_are_those_of_the_walk_at_hand(names: Names) -> None:
    run(
        names,
        "walk(0x60_1000)\ndef address(): return pte.ADDR\na = address()\nheld = pte\nwalk(0x40_0000)\nb = address()",
    )
    assert (names["a"], names["b"]) == (0x240_1000, 0x200_0000)
    run(names, "c = held.ADDR")
    assert names["c"] == 0x240_1000, "an entry that was kept stays at its address"
    with pytest.raises(InputError, match="there is no PTE"):
        run(names, "walk(0x7fff_f000_0000); pte")


def test_assigning_to_a_word_writes_it(names: Names) -> None:
    session = names["session"]
    run(names, "walk(0x60_1000)\nraw = pte.raw\npte = raw | 2\ncr4 = cr4.raw & ~(1 << 20)\nfor pte in (raw, 0): pass")
    assert [type(edit).__name__ for edit in session.edits().done] == [
        "EntryEdit", "RegisterEdit", "EntryEdit", "EntryEdit",
    ]  # fmt: skip
    assert names["pte"].raw == 0
    assert names["cr4"].SMEP == 0
    run(names, "regs.cr4 = 0x3000a0; regs.CR4.PGE = 0")
    assert session.machine.registers["CR4"] == 0x300020


def test_the_shells_own_names_stay(names: Names) -> None:
    for name in ("walk", "machine", "regs", "help", "session"):
        with pytest.raises(InputError, match="belongs to the shell"):
            run(names, f"{name} = 1")
    run(names, "mine = 1\nmine += 1")
    assert names["mine"] == 2


def test_another_file_brings_its_registers(names: Names) -> None:
    told: list[Difference] = []
    names["session"].on_edit = told.append
    run(names, f"mine = 1\nload({str(ARM64)!r})")
    assert "cr4" not in names
    assert names["mine"] == 1
    run(names, "walk(0x40_8000)\ntcr_el1.HA = 0\npte.AF = 0")
    assert [difference.changed for difference in told] == [False, True]
    assert set(dir(names["regs"])) >= {"TCR_EL1", "TTBR0_EL1", "SCTLR_EL1", "HCR_EL2"}
