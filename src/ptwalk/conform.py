"""Vector files of either architecture through our walkers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .arch.errors import InputError
from .mmu.conform import ConformReport
from .mmu.vectors import read_arrays, read_names

_MARKS = {"maxphyaddr": "x86_64", "feat": "arm64"}  # an array that only one architecture's files have
INPUTS = {
    "mode", "regs", "regs2", "va", "acc_kind", "cpl", "maxphyaddr", "np_enable", "acc_el", "pstate_el", "pstate_pan",
    "aligned", "at_pan", "feat", "imp", "mem_off", "mem_pa", "mem_val",
}  # fmt: skip
_DEFAULT = {"x86_64": "architecture", "arm64": "arm"}


def conform(
    path: Path | str, profile: str | None = None, engines: tuple[str, ...] = ("reference", "kernel")
) -> ConformReport:
    """Run a vector file of x86 or arm64 (told apart by its arrays) through the reference walker and the kernel.

    `profile` is a named behaviour of that architecture, by default the architecture's own. InputError where the file
    is neither kind, or cannot be used.
    """
    arch = _architecture(path)
    if arch == "x86_64":
        from .mmu.x86_64.conform import conform as run
    else:
        from .mmu.arm64.conform import conform as run
    return run(path, profile or _DEFAULT[arch], engines)


def _architecture(path: Path | str) -> str:
    names = read_names(path)
    found = [arch for mark, arch in _MARKS.items() if mark in names]
    if len(found) != 1:
        raise InputError("neither an x86 nor an arm64 vector file", file=path, field=" or ".join(_MARKS))
    return found[0]


def write_vectors(cases: Path | str, out: Path | str) -> int:
    """Run the cases of a file through the reference walker and write them with its answers; the number of cases.

    `cases` needs the input arrays only (docs/vectors.md); its `o_*`, `upd_*` and evidence arrays are not taken over.
    `out` appears when it is complete; InputError where it exists already.
    """
    import numpy as np

    from .mmu.arm64 import cases as arm64_cases
    from .mmu.arm64.conform import run_case
    from .mmu.x86_64 import cases as x86_cases

    if Path(out).exists():
        raise InputError("exists already and is left as it is", file=out)
    arch = _architecture(cases)
    arrays: dict[str, Any] = {name: array for name, array in read_arrays(cases).items() if name in INPUTS}
    arrays |= {f"upd_{part}": np.zeros(0, np.uint64) for part in ("pa", "val")}
    arrays["upd_off"] = np.zeros(len(arrays.get("va", ())) + 1, np.uint32)
    answers: list[tuple[dict[str, int], dict[int, int]]] = []
    if arch == "x86_64":
        file = x86_cases.CaseFile(arrays, cases)
        for i in range(len(file)):
            case = file.case(i)
            end, after = case.run()
            changed = {pa: value for pa, value in after.items() if case.words.get(pa, 0) != value}
            answers.append((x86_cases.result_columns(end), changed))
    else:
        listed = arm64_cases.CaseFile(arrays, str(cases))
        answers = [run_case(listed.case(i)) for i in range(len(listed))]
    arrays["upd_off"] = np.cumsum([0, *(len(words) for _, words in answers)]).astype(np.uint32)
    for k, part in enumerate(("pa", "val")):
        words = [pair[k] for _, changed in answers for pair in changed.items()]
        arrays[f"upd_{part}"] = np.array(words, np.uint64)
    for name in answers[0][0]:
        values = [columns[name] for columns, _ in answers]
        arrays[name] = np.array(values, np.int64 if min(values) < 0 else np.uint64)
    partial = Path(f"{out}.partial")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    partial.replace(out)
    return len(answers)
