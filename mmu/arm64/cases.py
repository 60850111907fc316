"""Cases of the arm64 vector files: registers, access and sparse memory in, the specification's answer out.

The arrays and columns are those of the vectors' FORMAT: `regs`, `regs2`, `feat`, `imp`, CSR-packed memory words, and
`o_*` result columns. Everything read from a file is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...arch.errors import InputError
from ..memory import WordMemory
from ..vectors import VectorArrays, read_arrays
from .access import Arm64Access, Operation
from .context import Context, Detail
from .features import FEATURES, PA_SIZES, Choices, Features
from .syndrome import iss
from .system import SystemState
from .walk import make_context

if TYPE_CHECKING:
    import numpy as np

_WIDE = ("TTBR0_EL1", "TTBR1_EL1", "VTTBR_EL2")
_REGS = """SCTLR_EL1 TCR_EL1 TCR2_EL1 TTBR0_EL1 TTBR0_EL1:hi TTBR1_EL1 TTBR1_EL1:hi MAIR_EL1 MAIR2_EL1 PIR_EL1 PIRE0_EL1
    POR_EL0 POR_EL1 HCR_EL2 HCRX_EL2 VTCR_EL2 VTTBR_EL2 VTTBR_EL2:hi S2PIR_EL2 S2POR_EL1 SCR_EL3 GPCCR_EL3 GPTBR_EL3
    SCTLR_EL2"""
_REGS2 = """TCR_EL2 TCR2_EL2 TTBR0_EL2 TTBR1_EL2 MAIR_EL2 MAIR2_EL2 PIR_EL2 PIRE0_EL2 POR_EL2 SCTLR_EL3 TCR_EL3
    TTBR0_EL3 MAIR_EL3 MAIR2_EL3 PIR_EL3 POR_EL3"""
REGS, REGS2 = tuple(_REGS.split()), tuple(_REGS2.split())
FEATS = FEATURES[:27]
KINDS = (
    Operation.READ,
    Operation.WRITE,
    Operation.FETCH,
    Operation.AT_READ,
    Operation.AT_WRITE,
    Operation.ATOMIC,
    Operation.DC_ZVA,
    Operation.DC_CLEAN,
    Operation.EXCLUSIVE_READ,
)
_SCALARS = ("va", "acc_kind", "acc_el", "pstate_pan", "aligned", "at_pan")


@dataclass(frozen=True, slots=True)
class Case:
    """One case, ready to run: see `Context` for what the walk needs."""

    system: SystemState
    words: dict[int, int]
    va: int
    access: Arm64Access

    def context(self) -> Context:
        """A translation of this case over a private copy of its memory."""
        return make_context(self.system, WordMemory(dict(self.words)), self.va, self.access, update=True)


class CaseFile(VectorArrays):
    """A vector file, its arrays checked for shape and range."""

    def __init__(self, arrays: Mapping[str, np.ndarray[Any, Any]], path: Path | str = "") -> None:
        super().__init__(arrays, path)
        n = self.count
        for name in _SCALARS:
            self.array(name, n)
        for name, columns in (("regs", len(REGS)), ("feat", len(FEATS)), ("imp", 6)):
            self.array(name, n, columns)
        if "regs2" in self.arrays:
            self.array("regs2", n, len(REGS2))
        for name in ("mem", "upd"):
            self.csr(name, "pa", "val")
        for name in (key for key in self.arrays if key.startswith("o_")):
            self.array(name, n)
        self.bounded("acc_kind", 0, len(KINDS) - 1)
        self.bounded("acc_el", 0, 3)
        if not set(self.arrays["imp"][:, 3].tolist()) <= set(PA_SIZES):
            raise InputError("not a physical address size", file=self.path, field="imp")
        for name in ("regs", "regs2", "va", "mem_pa", "mem_val", "mem_off"):
            if name in self.arrays and self.arrays[name].dtype.kind == "i" and (self.arrays[name] < 0).any():
                raise InputError("a negative value", file=self.path, field=name)
        if int(self.arrays["mem_pa"].max(initial=0)) >> 56:
            raise InputError("an address beyond 56 bits", file=self.path, field="mem_pa")

    @classmethod
    def load(cls, path: Path | str) -> CaseFile:
        """Read an .npz; InputError where it is cut, hostile or not of this format."""
        return cls(read_arrays(path), path)

    def registers(self, i: int) -> dict[str, int]:
        """The registers of case `i` by the manual's names, 128-bit ones in one piece."""
        values: dict[str, int] = dict(zip(REGS, self.arrays["regs"][i].tolist(), strict=True))
        for name in _WIDE:
            values[name] |= values.pop(f"{name}:hi") << 64
        if "regs2" in self.arrays:
            values |= zip(REGS2, self.arrays["regs2"][i].tolist(), strict=True)
        return values

    def choices(self, i: int) -> Choices:
        """The IMPLEMENTATION DEFINED answers of case `i`."""
        nt, contig, bbm, _, above, below = (int(x) for x in self.arrays["imp"][i])
        return Choices(
            nt_block_faults=bool(nt),
            contig_misprog_faults=bool(contig),
            bbm_level=bbm,
            txsz_above_max_faults=bool(above),
            txsz_below_min_faults=bool(below),
        )

    def features(self, i: int) -> Features:
        """The implemented features of case `i`."""
        have = frozenset(name for name, on in zip(FEATS, self.arrays["feat"][i].tolist(), strict=True) if on)
        return Features(have, int(self.arrays["imp"][i, 3]))

    def access(self, i: int) -> Arm64Access:
        """The access of case `i`."""
        operation, el = KINDS[self.arrays["acc_kind"][i]], int(self.arrays["acc_el"][i])
        pan, at_pan, aligned = (bool(self.arrays[name][i]) for name in ("pstate_pan", "at_pan", "aligned"))
        return Arm64Access(operation.traits.kind, el == 0, el, operation, pan, at_pan, aligned)

    def case(self, i: int) -> Case:
        """Case `i`; RegisterError where its registers cannot be used at all."""
        system = SystemState(self.registers(i), self.features(i), self.choices(i))
        return Case(system, self.words("mem", i), int(self.arrays["va"][i]), self.access(i))


def result_columns(ctx: Context, detail: Detail) -> dict[str, int]:
    """The `o_*` columns for a finished translation, by the vectors' rules for what is 0 where."""
    out = dict.fromkeys(COLUMNS, 0)
    out |= _leaf_columns(detail)
    out["o_nreads"], out["o_nwrites"] = detail.reads, detail.writes
    if detail.ipa is not None:
        out |= {"o_ipa_valid": 1, "o_ipa": detail.ipa, "o_ipa_space": int(detail.ipa_space)}
    out |= _success_columns(detail) if detail.fault is None else _fault_columns(ctx, detail)
    return out


def _leaf_columns(detail: Detail) -> dict[str, int]:
    out: dict[str, int] = {}
    for prefix, leaf in (("o_s1", detail.s1_leaf), ("o_s2", detail.s2_leaf)):
        if leaf is not None:
            out[f"{prefix}_leaf_valid"], out[f"{prefix}_leaf_level"] = 1, leaf.level
            out[f"{prefix}_contig"], out[f"{prefix}_contig_log2"] = int(leaf.contiguous_log2 > 0), leaf.contiguous_log2
            out[f"{prefix}_size_log2"] = leaf.size_log2
    if detail.s1_leaf is not None:
        out["o_s1_ng"], out["o_s1_gp"] = detail.s1_leaf.ng, detail.s1_leaf.guarded
    return out


def _success_columns(detail: Detail) -> dict[str, int]:
    attrs = detail.attrs
    assert attrs is not None
    # The output of stage 2 no longer says what stage 1 vouched for.
    assured = int(detail.s1_assured and detail.s2_leaf is None)
    out = {"o_pa": detail.pa, "o_pa_space": int(detail.pa_space), "o_s1assured": assured}
    out |= {"o_shareability": int(attrs.shareability), "o_xs": attrs.xs, "o_memtype": int(attrs.device >= 0)}
    if attrs.device >= 0:
        return out | {"o_device": attrs.device}
    for name, cache in (("inner", attrs.inner), ("outer", attrs.outer)):
        out[f"o_{name}_attrs"], out[f"o_{name}_hints"] = int(cache.attrs), cache.hints
        out[f"o_{name}_transient"] = int(cache.transient)
    return out


def _fault_columns(ctx: Context, detail: Detail) -> dict[str, int]:
    record = detail.fault
    assert record is not None
    first, second = iss(ctx, record)
    out = {
        "o_fault": int(record.fault),
        "o_level": record.level,
        "o_secondstage": int(record.stage2),
        "o_s2fs1walk": int(record.s2fs1walk),
        "o_write": int(record.write),
        "o_dirtybit": int(record.dirty_bit),
        "o_overlay": int(record.overlay),
        "o_toplevel": int(record.top_level),
        "o_assuredonly": int(record.assured_only),
        "o_iss": first,
        "o_iss2": second,
    }
    if record.stage2:
        out |= {"o_fault_ipa": record.ipa or 0, "o_fault_ipa_space": int(record.ipa_space)}
    if record.gpcf:
        out |= {"o_gpcf": record.gpcf, "o_gpcf_level": record.gpcf_level, "o_gpcf_s2walk": int(record.gpcf_s2walk)}
        out |= {"o_fault_pa": record.pa, "o_fault_pa_space": int(record.pa_space)}
    return out


_COLUMNS = """fault level secondstage s2fs1walk write dirtybit overlay toplevel assuredonly s1tagnotdata tagaccess iss
    iss2 fault_ipa fault_ipa_space gpcf gpcf_level gpcf_s2walk fault_pa fault_pa_space pa pa_space memtype device
    inner_attrs inner_hints inner_transient outer_attrs outer_hints outer_transient shareability xs tags notagaccess
    ipa_valid ipa ipa_space s1_leaf_valid s1_leaf_level s1_contig s1_ng s1_gp s1_size_log2 s1_contig_log2 s2_leaf_valid
    s2_leaf_level s2_contig s2_size_log2 s2_contig_log2 s1assured nreads nwrites"""
COLUMNS = tuple(f"o_{name}" for name in _COLUMNS.split())
