"""`ptwalk conform` for arm64: a file of Arm's golden vectors against the reference walker and the compiled one.

Every `o_*` column of the format is compared, and every memory word after the access (`upd`). With a profile other than
`arm` the deviations of that emulator are applied on top of each case's own answers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...arch.arm64.faults import FaultType, describe_status
from ...arch.errors import InputError, RegisterError
from ..conform import ConformReport
from ..progress import tracked
from .cases import COLUMNS, Case, CaseFile, result_columns
from .features import PROFILES
from .system import SystemState
from .walk import run

ENGINES = ("reference", "kernel")
_UPDATES = "upd"


def conform(path: Path | str, profile: str = "arm", engines: tuple[str, ...] = ENGINES) -> ConformReport:
    """Compare a vector file with our engines; InputError for an unusable file or an unknown profile.

    >>> conform("missing.npz")
    Traceback (most recent call last):
    ptwalk.arch.errors.InputError: missing.npz: not a readable vector file: ...
    """
    if profile not in PROFILES:
        raise InputError(f"no such profile (there are: {', '.join(PROFILES)})", field="profile", value=profile)
    file = CaseFile.load(path)
    report = ConformReport(str(path), "arm64", len(file), profile)
    columns = [name for name in COLUMNS if name in file.arrays]
    if not columns:
        raise InputError("the file holds no results to compare with", file=path, field="o_*")
    if "reference" in engines:
        _reference(file, profile, columns, report)
    if "kernel" in engines and profile == "arm":
        _kernel(file, columns, report)
    return report


def _with_profile(case: Case, profile: str) -> Case:
    if profile == "arm":
        return case
    system, wanted = case.system, PROFILES[profile]
    choices = replace(system.choices, deviations=wanted.deviations)
    return replace(case, system=SystemState(system.registers, system.features, choices))


def run_case(case: Case) -> tuple[dict[str, int], dict[int, int]]:
    """The result columns and the changed words of one case by the reference walker."""
    ctx = case.context()
    walk = run(ctx)
    for _ in walk:
        pass
    return result_columns(ctx, ctx.detail), {pa: new for pa, _, new in ctx.detail.updates}


def _reference(file: CaseFile, profile: str, columns: list[str], report: ConformReport) -> None:
    wanted = [file.arrays[name].tolist() for name in columns]
    wrong = dict.fromkeys([*columns, _UPDATES], 0)
    for i in tracked(range(len(file)), "cases, reference walker", every=256):
        try:
            got, updates = run_case(_with_profile(file.case(i), profile))
        except RegisterError as error:
            wrong[columns[0]] += 1
            report.tell("reference", i, str(error))
            continue
        differ = [name for name, values in zip(columns, wanted, strict=True) if got[name] != values[i]]
        differ += [] if updates == file.words(_UPDATES, i) else [_UPDATES]
        for name in differ:
            wrong[name] += 1
        if differ:
            report.tell("reference", i, _describe(file, i, differ, got, updates))
    for name, n in wrong.items():
        report.count("reference", name, len(file) - n, len(file))


def _kernel(file: CaseFile, columns: list[str], report: ConformReport) -> None:
    import numpy

    from . import kernel_cases

    found = kernel_cases.run(file)
    cases, left = int(found.taken.sum()), Counter(reason for reason in found.reasons if reason)
    if left:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(left.items()))
        report.refused["kernel"] = f"{len(file) - cases} of {len(file)} cases are the reference walker's ({reasons})"
    differing: dict[int, list[str]] = {}
    for name in columns if cases else ():
        unequal = (_words(found.columns[name]) != _words(file.arrays[name])) & found.taken
        report.count("kernel", name, cases - int(unequal.sum()), cases)
        for i in numpy.flatnonzero(unequal).tolist():
            differing.setdefault(i, []).append(name)
    offsets, addresses = file.arrays["mem_off"].tolist(), file.arrays["mem_pa"].tolist()
    after = found.words.tolist()
    for i in numpy.flatnonzero(found.taken).tolist():
        before, a, b = file.words("mem", i), offsets[i], offsets[i + 1]
        changed = {pa: value for pa, value in zip(addresses[a:b], after[a:b], strict=True) if before[pa] != value}
        equal = changed == file.words(_UPDATES, i)
        report.count("kernel", _UPDATES, int(equal), 1)
        if not equal:
            differing.setdefault(i, []).append(_UPDATES)
    for i, names in sorted(differing.items()):
        got = {name: int(found.columns[name][i]) for name in columns}
        report.tell("kernel", i, _describe(file, i, names, got, {}))


def _words(array: Any) -> Any:
    """Any integer column as 64-bit words, so that signed and unsigned columns compare."""
    import numpy

    return array.astype(numpy.uint64 if array.dtype.kind == "u" else numpy.int64).view(numpy.uint64)


def _describe(file: CaseFile, i: int, differ: list[str], got: dict[str, int], updates: dict[int, int]) -> str:
    access = file.access(i)
    operation = access.operation.name if access.operation else access.kind.name
    parts = []
    for name in differ:
        if name == _UPDATES:
            parts.append(f"words changed {_hex(updates)}, expected {_hex(file.words(_UPDATES, i))}")
            continue
        want = int(file.arrays[name][i])
        parts.append(f"{name} is {_value(name, got[name])}, expected {_value(name, want)}")
    return f"{operation} at EL{access.el}, va {int(file.arrays['va'][i]):#018x}: {'; '.join(parts)}"


def _hex(words: dict[int, int]) -> str:
    return "{" + ", ".join(f"{pa:#x}: {value:#018x}" for pa, value in words.items()) + "}"


def _value(name: str, value: int) -> str:
    if name == "o_fault" and value in set(FaultType):
        return FaultType(value).title
    return f"{value:#x} ({describe_status(value & 63)})" if name == "o_iss" and value else f"{value:#x}"
