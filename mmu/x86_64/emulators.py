"""The emulators' raw answers in a vector file against the reference walker with that emulator's profile.

A profile that agrees with every raw answer is a complete description of where that emulator leaves the architecture.
Compared are vector, error code, EXITINFO1 and, without nested paging, every word afterwards, faults included.
"""

from __future__ import annotations

from ...arch.errors import InputError
from ..conform import ConformReport
from .cases import CaseFile, result_columns

ANSWERS = {"qemu-7.2": (0, "chg_qemu"), "unicorn-2.1.4": (1, "chg_unicorn"), "bochs-2.7": (2, "chg_bochs")}
NOT_RUN = 65535
_NEEDED = {"r_vec": 3, "r_err": 3, "r_npf_info1": 3}
_PAGE_FAULT, _NESTED = 14, 254


def compare_answers(file: CaseFile, profile: str) -> ConformReport:
    """Every case that the emulator ran; InputError where the file holds no raw answers."""
    column, changes = ANSWERS[profile]
    for name, width in _NEEDED.items():
        file.array(name, len(file), width)
    file.array(changes, int(file.arrays["mem_off"][-1]))
    report = ConformReport(file.path, "x86_64", len(file), profile)
    report.refused["kernel"] = f"profile {profile}: the kernel follows the architecture"
    ran = [i for i in range(len(file)) if int(file.arrays["r_vec"][i, column]) != NOT_RUN]
    if not ran:
        raise InputError("this emulator ran none of the file's cases", file=file.path, field="r_vec", value=profile)
    for i in ran:
        _one(file, report, i, column, changes)
    return report


def _one(file: CaseFile, report: ConformReport, i: int, column: int, changes: str) -> None:
    end, after = file.case(i, report.profile).run()
    got = result_columns(end)
    answer = {name: int(file.arrays[name][i, column]) for name in _NEEDED}
    same = report.compare("reference", i, "r_vec", got["o_vec"], answer["r_vec"])
    if same and got["o_vec"] == _PAGE_FAULT:
        report.compare("reference", i, "r_err", got["o_err"], answer["r_err"])
    if same and got["o_vec"] == _NESTED:
        report.compare("reference", i, "r_npf_info1", got["o_npf_info1"], answer["r_npf_info1"])
    if same and not (file.arrays["np_enable"][i] and got["o_vec"] in (_PAGE_FAULT, _NESTED)):
        a, b = (int(offset) for offset in file.arrays["mem_off"][i : i + 2])
        flips = zip(file.arrays["mem_pa"][a:b].tolist(), file.arrays[changes][a:b].tolist(), strict=True)
        before = file.words("mem", i)
        wrong = [pa for pa, flip in flips if after[pa] != before[pa] ^ flip]
        report.compare("reference", i, changes, len(wrong), 0)
