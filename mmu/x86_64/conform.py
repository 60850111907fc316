"""`ptwalk conform` for x86: a vector file against the reference walker and the compiled one.

Compared are the result columns of `cases.COLUMNS` that the file holds, with the alternatives that the format names
(`o_err_alt`, `o_npf_info1_alt`), and every memory word after a success (`upd`). On faults the format leaves accessed
bits open, so no words are compared there. With an emulator's profile the file's raw answers of that emulator are the
expectation instead (see `emulators`).
"""

from __future__ import annotations

from pathlib import Path

from ...arch.errors import InputError, RegisterError
from ..conform import ConformReport
from ..progress import tracked
from ..walk import AccessKind
from .cases import COLUMNS, SUCCESS, Case, CaseFile, result_columns
from .emulators import ANSWERS, compare_answers
from .profiles import profile as find_profile
from .rows import not_taken

ENGINES = ("reference", "kernel")
_UPDATES = "upd"
_ALTERNATIVE = {"o_err": "o_err_alt", "o_npf_info1": "o_npf_info1_alt"}


def conform(path: Path | str, profile: str = "architecture", engines: tuple[str, ...] = ENGINES) -> ConformReport:
    """Compare a vector file with our engines; InputError for an unusable file or an unknown profile.

    >>> conform("missing.npz")
    Traceback (most recent call last):
    ptwalk.arch.errors.InputError: missing.npz: not a readable vector file: ...
    """
    find_profile(profile)
    file = CaseFile.load(path)
    if profile in ANSWERS:
        return compare_answers(file, profile)
    columns = [name for name in COLUMNS if name in file.arrays]
    if not columns:
        raise InputError("the file holds no results to compare with", file=path, field="o_*")
    report = ConformReport(str(path), "x86_64", len(file), profile)
    if "reference" in engines:
        for i in tracked(range(len(file)), "cases, reference walker", every=256):
            _one(file, report, i, columns, profile)
    if "kernel" in engines:
        _kernel(file, report, columns, profile)
    return report


def _one(file: CaseFile, report: ConformReport, i: int, columns: list[str], profile: str) -> None:
    try:
        case = file.case(i, profile)
    except RegisterError as error:
        report.count("reference", columns[0], 0, 1)
        report.tell("reference", i, str(error))
        return
    end, after = case.run()
    compare(file, report, "reference", i, columns, result_columns(end), after)


def _kernel(file: CaseFile, report: ConformReport, columns: list[str], profile: str) -> None:
    from . import kernel_cases

    if why := next(filter(None, (not_taken(file.regime(i, profile)) for i in range(len(file)))), ""):
        report.refused["kernel"] = why
        return
    found = kernel_cases.run(file, profile)
    for i in range(len(file)):
        got = {name: int(found.columns[name][i]) for name in columns}
        compare(file, report, "kernel", i, columns, got, found.words(i))


def compare(
    file: CaseFile, report: ConformReport, engine: str, i: int, columns: list[str], got: dict[str, int],
    after: dict[int, int],
) -> None:  # fmt: skip
    """Count one case: every result column, and after a success every word of memory."""
    about = f" ({describe(file, i)})"
    for name in columns:
        allowed = [int(file.arrays[key][i]) for key in (name, _ALTERNATIVE.get(name, "")) if key in file.arrays]
        report.compare(engine, i, name, got[name], *allowed, about=about)
    if got.get("o_vec") == SUCCESS:
        expected = file.words("mem", i) | file.words("upd", i)
        wrong = [pa for pa, value in expected.items() if after.get(pa) != value]
        report.count(engine, _UPDATES, int(not wrong), 1)
        if wrong:
            pa = wrong[0]
            text = f"the word at {pa:#018x} is {after.get(pa, 0):#018x}, expected {expected[pa]:#018x}{about}"
            report.tell(engine, i, text)


def describe(file: CaseFile, i: int) -> str:
    """One case in words, for the list of disagreements."""
    access = file.access(i)
    names = {AccessKind.READ: "read", AccessKind.WRITE: "write", AccessKind.EXECUTE: "fetch"}
    who = "user" if access.user else "supervisor"
    traits = [word for word, on in (("implicit", access.implicit), ("shadow-stack", access.shadow_stack)) if on]
    return " ".join([who, *traits, names[access.kind], f"at {int(file.arrays['va'][i]):#018x}"])


def expected(case: Case) -> dict[str, int]:
    """The result columns that the reference walker gives for a case: what a campaign compares an emulator with."""
    return result_columns(case.run()[0])
