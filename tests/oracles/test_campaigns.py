"""The generators and comparers without an emulator; a short run on each emulator that is installed (slow)."""

import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from oracles import __main__ as command
from oracles import arm64_proven, tools, x86
from oracles.arm64_proven import campaign as arm_campaign
from oracles.arm64_proven import cases as arm_cases
from oracles.arm64_proven import expect as arm_expect
from oracles.arm64_proven import protocol as arm
from oracles.tally import Tally
from oracles.x86 import campaign, expect, protocol
from oracles.x86.cases import Setup, cases

SEED = 20_261_123
SETUPS = [Setup(4, 40), Setup(5, 52)]


def defines(path):
    """The numbers that a C file defines."""
    text = Path(path).read_text()
    return {name: int(value, 0) for name, value in re.findall(r"#define (\w+)\s+(0x[0-9a-f]+|\d+)(?:UL)?\b", text)}


def test_host_and_x86_guest_agree_on_the_map():
    c = defines(Path(x86.__file__).parent / "guest" / "map.h")
    assert (c["CONTROL"], c["ROOTS"], c["ROOTS_END"]) == (protocol.CONTROL, protocol.ROOTS.start, protocol.ROOTS.stop)
    assert (c["CELLS"], c["CELLS_END"]) == (protocol.CELLS.start, protocol.CELLS.stop)
    assert c["HARNESS_END"] >= protocol.TABLES.stop
    assert c["HARNESS_PML4"] == protocol.ROOTS.stop
    assert protocol.TEST_BYTES == 48 + protocol.WORDS * 16
    assert protocol.RESULT_BYTES == 24 + protocol.WORDS * 8


def test_host_and_arm64_guest_agree_on_the_map():
    path = Path(arm64_proven.__file__).parent / "guest" / "guest.c"
    c = defines(path)
    assert (c["CONTROL"], c["HARNESS"]) == (arm.CONTROL, arm.HARNESS)
    assert (c["CELLS"], c["CELLS_END"]) == (arm.CELLS.start, arm.CELLS.stop)
    assert f"WORDS = {arm.WORDS}, AT_FORMS = {len(arm.AT_FORMS)}, FETCH = {arm.REAL_FORMS.index('fetch')}" in (
        path.read_text()
    )


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_x86_cases_leave_the_harness_alone_and_are_hostile(setup):
    print(f"seed {SEED}")
    ends = Counter()
    for case in islice(cases(Random(SEED), setup), 3000):
        assert len(case.words) <= protocol.WORDS
        assert len(case.pack()) == protocol.TEST_BYTES
        for pa in case.words:
            assert pa & ~0xFFF in protocol.TABLES or (pa & ~0xFFF in protocol.ROOTS and pa & 0xFFF)
        answer = expect.expect(case, "architecture")
        ends[answer.vector, answer.error & 9] += 1
    for end in ((None, 0), (14, 0), (14, 1), (14, 9), (13, 0)):
        assert ends[end] > 40, ends


@pytest.mark.parametrize("profile", ["qemu-7.2", "bochs-2.7"])
def test_an_x86_answer_is_the_architectures_a_named_deviation_or_unexplained(tmp_path, profile):
    tally = Tally("test", 0, tmp_path / "failures.jsonl")
    for case in islice(cases(Random(SEED), Setup(4, 40)), 1500):
        prepared = campaign.Prepared(case, expect.expect(case, "architecture"))
        theirs = expect.expect(case, profile)
        campaign.judge(prepared, theirs, profile, tally)
    assert not tally.unexplained
    assert tally.classes["as the architecture says"] > 300
    assert sum(n for text, n in tally.classes.items() if text.startswith(f"{profile}: ") and len(text) > 14) > 20
    for wrong in (replace(theirs, error=theirs.error ^ 0x8000), replace(theirs, after=(1, *theirs.after[1:]))):
        campaign.judge(prepared, wrong, profile, tally)
    assert tally.unexplained.total() == 2
    assert len(tally.failures.read_text().splitlines()) == 2
    assert tally.report() == 1


def test_arm64_cases_leave_the_harness_alone_and_are_hostile():
    print(f"seed {SEED}")
    ends = Counter()
    for case in islice(arm_cases.cases(Random(SEED)), 1500):
        assert len(case.pack()) == arm.TEST_BYTES
        assert all(pa in arm.TABLES for pa in case.words)
        answer = arm_expect.expect(case, arm_expect.EMULATOR, in_two=True)
        if answer is not None:
            ends[answer.end, answer.values[0] & 1 if answer.end == "PAR_EL1" else 0] += 1
    assert set(ends) == {("PAR_EL1", 0), ("PAR_EL1", 1), ("went through", 0), ("abort", 0)}
    assert min(ends.values()) > 80, ends


def test_an_arm64_answer_is_the_architectures_a_named_deviation_or_unexplained(tmp_path):
    tally = Tally("test", 0, tmp_path / "failures.jsonl")
    for case in islice(arm_cases.cases(Random(SEED)), 600):
        expected = arm_expect.expect(case, arm_expect.EMULATOR, in_two=True)
        if expected is not None:
            arm_campaign.judge(case, expected, expected, tally)
            last = case, expected
    assert not tally.unexplained
    assert tally.classes["as the architecture says"] > 200
    assert tally.classes["qemu-7.2: s1ptw-level-of-stage1"] > 3
    case, expected = last
    arm_campaign.judge(case, expected, replace(expected, after=(1, *expected.after[1:])), tally)
    assert tally.report() == 1


def test_what_cannot_run_says_so(monkeypatch, capsys):
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    assert command.main(["x86", "--cases", "10", "--seed", "1"]) == 2
    assert "apt-get install" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        command.main(["arm64", "--emulator", "bochs"])
    assert end.value.code == 2


PROGRAMS = {
    ("x86", "qemu"): ["qemu-system-x86_64", "gcc", "ld", "objcopy"],
    ("x86", "bochs"): ["bochs", "gcc", "ld", "objcopy"],
    ("arm64-proven", "qemu"): ["qemu-system-aarch64", "aarch64-linux-gnu-gcc"],
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", PROGRAMS, ids="-".join)
def test_a_short_campaign_on_the_emulator(arch, tmp_path):
    if absent := tools.missing(PROGRAMS[arch]):
        pytest.skip(f"not installed: {', '.join(absent)}")
    words = [arch[0], "--emulator", arch[1], "--cases", "2000", "--seed", str(SEED)]
    assert command.main([*words, "--failures", str(tmp_path / "failures.jsonl")]) == 0
