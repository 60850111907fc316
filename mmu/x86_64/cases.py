"""Cases of the x86 vector files: registers, access and sparse memory in, the expected outcome out.

The arrays and columns are those of the vectors' FORMAT; everything read from a file is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...arch.x86_64.registers import CR0, CR4, EFER
from ..memory import WordMemory
from ..vectors import VectorArrays, read_arrays
from ..walk import AccessKind, Fault, Outcome, Translation, outcome
from .access import X86Access
from .npt import NestedFault, NestedRegime
from .regime import X86Regime

if TYPE_CHECKING:
    import numpy as np

REGS = ("CR0", "CR3", "CR4", "EFER", "RFLAGS", "PKRU", "PKRS", "nCR3", "hostCR4", "hostEFER")
_READ, _WRITE, _FETCH = AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE
# acc_kind: kind of access, implicit, shadow stack, and whether it is a user access at CPL 0
KINDS = (
    (_READ, False, False, False),
    (_WRITE, False, False, False),
    (_FETCH, False, False, False),
    (_WRITE, False, False, False),  # locked read-modify-write: one write access
    (_READ, True, False, False),
    (_WRITE, False, True, False),  # WRSS
    (_WRITE, False, True, True),  # WRUSS
    (_READ, False, True, False),  # INCSSP
)
LOCKED = 3
VECTORS = {"#SS": 12, "#GP": 13, "#PF": 14, "#VMEXIT(NPF)": 254}
SUCCESS = 255
CAUSES = {
    "P": 1, "RSVD": 2, "U/S": 4, "SS-U/S": 4, "R/W": 8, "XD": 16, "SMEP": 32, "SMAP": 64, "PKU": 128, "PKS": 128,
    "SS": 256,
}  # fmt: skip
COLUMNS = ("o_vec", "o_err", "o_cr2", "o_pa", "o_gpa", "o_level", "o_npf_info1", "o_npf_info2", "o_cause")


@dataclass(frozen=True, slots=True)
class Case:
    """One case, ready to run."""

    regime: X86Regime | NestedRegime
    words: dict[int, int]
    va: int
    access: X86Access

    def run(self) -> tuple[Outcome, dict[int, int]]:
        """The outcome of the reference walker, and the words afterwards."""
        memory = WordMemory(dict(self.words))
        end = outcome(self.regime.walk(memory, self.va, self.access, update=True))
        return end, memory.words


class CaseFile(VectorArrays):
    """A vector file, its arrays checked for shape and range."""

    def __init__(self, arrays: Mapping[str, np.ndarray[Any, Any]], path: Path | str = "") -> None:
        super().__init__(arrays, path)
        n = self.count
        self.array("va", n)
        self.array("regs", n, len(REGS))
        self.bounded("acc_kind", 0, len(KINDS) - 1)
        self.bounded("cpl", 0, 3)
        self.bounded("maxphyaddr", 32, 52)
        self.bounded("np_enable", 0, 1)
        self.csr("mem", "pa", "val")
        self.csr("upd", "pa", "val")
        for name in self.results:
            self.array(name, n)

    @classmethod
    def load(cls, path: Path | str) -> CaseFile:
        """Read an .npz; InputError where it is cut, hostile or not of this format."""
        return cls(read_arrays(path), path)

    @property
    def results(self) -> list[str]:
        """The result columns that the file holds."""
        return [name for name in self.arrays if name.startswith("o_")]

    def access(self, i: int) -> X86Access:
        """The access of case `i`."""
        number = int(self.arrays["acc_kind"][i])
        kind, implicit, shadow_stack, user = KINDS[number]
        user = user or int(self.arrays["cpl"][i]) == 3
        return X86Access(kind, user, implicit, shadow_stack, rmw=number == LOCKED)

    def regime(self, i: int, profile: str = "architecture") -> X86Regime | NestedRegime:
        """The regime of case `i`; RegisterError where its registers cannot be used."""
        values = dict(zip(REGS, self.arrays["regs"][i].tolist(), strict=True))
        features: dict[str, int | str] = {"maxphyaddr": int(self.arrays["maxphyaddr"][i]), "profile": profile}
        guest = X86Regime.from_registers({name: values[name] for name in REGS[:7]}, features)
        if not self.arrays["np_enable"][i]:
            return guest
        host = {
            "CR0": CR0.build(PE=1, WP=1, PG=1),
            "CR3": values["nCR3"],
            "CR4": values["hostCR4"] | CR4.mask("PAE"),
            "EFER": values["hostEFER"] | EFER.mask("LME", "LMA"),
        }
        return NestedRegime(guest, X86Regime.from_registers(host, features))

    def case(self, i: int, profile: str = "architecture") -> Case:
        """Case `i`, ready to run."""
        return Case(self.regime(i, profile), self.words("mem", i), int(self.arrays["va"][i]), self.access(i))


def result_columns(end: Outcome) -> dict[str, int]:
    """The `o_*` columns of a finished walk, by the vectors' rules for what is 0 where."""
    out = dict.fromkeys(COLUMNS, 0) | {"o_level": -1 if end.level is None else end.level - 1}
    if isinstance(end, Translation):
        gpa = end.attributes.get("gpa", end.pa)
        return out | {"o_vec": SUCCESS, "o_pa": end.pa, "o_gpa": gpa if isinstance(gpa, int) else 0}
    return out | _fault_columns(end)


def _fault_columns(end: Fault) -> dict[str, int]:
    causes: tuple[str, ...] = getattr(end, "causes", ())
    cause = 0
    for name in causes:
        cause |= CAUSES[name]
    out = {"o_vec": VECTORS[end.name], "o_cause": cause}
    if not {"P", "RSVD"}.isdisjoint(causes) or end.level is None:
        out["o_level"] = -1  # no leaf was reached
    if isinstance(end, NestedFault):
        out["o_level"] = -1 if end.guest_level is None else end.guest_level - 1
        protection = cause if cause in (CAUSES["P"], CAUSES["RSVD"]) else 0
        return out | {"o_npf_info1": end.code, "o_npf_info2": end.syndrome["EXITINFO2"], "o_cause": protection}
    return out | {"o_err": end.code, "o_cr2": end.syndrome.get("CR2", 0)}
