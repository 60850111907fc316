"""The whole legal space of kvm-unit-tests' access test through the compiled walker.

`python -m ptwalk.mmu.x86_64.access_space` walks every legal combination of 30 independent facts about one address: the
bits of its PDE and PTE, protection-key rights, the processor's switches and the access. What has to come out is
computed here from the facts alone, by whole-array arithmetic that shares nothing with the walkers. Facts and legality
follow x86/access.c of kvm-unit-tests at 1da1819e; its choice between native and emulated instructions is left out.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arch.x86_64 import entries
from ...arch.x86_64.faults import PF_ERROR_CODE
from ...arch.x86_64.registers import CR0, CR4, EFER, PKRU
from ..kernels.views import WordsView, words_view
from ..walk import AccessKind
from .access import X86Access
from .kernels import FAULTS, SLOT, SLOTS, translate_cases
from .regime import X86Regime
from .rows import pack

VA, PA = 0xFFFF_9234_0000_0000, 0x4000_0000
TABLES = (0x1000, 0x2000, 0x3000, 0x4000, 0x5000)  # PML5, PML4, PDPT, PD, PT
EXCLUDED = {
    "SMEP": "code pages are user pages, and with SMEP the test could not go on",
    "fetch and write": "no access is both",
    "PKRU rights without CR4.PKE": "they mean nothing",
    "bit 13 of a PDE without PS": "an address bit there",
    "two reserved bits": "the first one already decides, and the code is the same",
}
_PTE, _PDE = entries.PTE, entries.PDE_2M
_PTE_FACTS = ("W", "U", "A", "D", "P", "NX", "bit 51", "bit 36")
_PDE_FACTS = ("W", "U", "A", "D", "P", "PS", "NX", "bit 51", "bit 36", "bit 13")
_BITS = {
    "W": _PTE.mask("RW"), "U": _PTE.mask("US"), "A": _PTE.mask("A"), "D": _PTE.mask("D"), "P": _PTE.mask("P"),
    "PS": _PDE.mask("PS"), "NX": _PTE.mask("XD"), "bit 51": 1 << 51, "bit 36": 1 << 36, "bit 13": 1 << 13,
}  # fmt: skip
_OPEN = _PTE.mask("P", "RW", "US", "A")
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tables:
    """All legal states of the tables for one value of EFER.NXE: facts as arrays, and the words they make."""

    pte: dict[str, Flags]
    pde: dict[str, Flags]
    read_only_pdpte: Flags
    key: Flags

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def legal(cls, nxe: bool, maxphyaddr: int, stride: int = 1) -> Tables:
        """Every state that the filter passes, or each `stride`-th of them."""
        count = len(_PTE_FACTS) + len(_PDE_FACTS) + 2
        number = np.arange(1 << count, dtype=np.uint32)
        facts = [(number >> np.uint32(i) & np.uint32(1)).astype(np.bool_) for i in range(count)]
        pte: dict[str, Flags] = dict(zip(_PTE_FACTS, facts, strict=False))
        pde: dict[str, Flags] = dict(zip(_PDE_FACTS, facts[len(_PTE_FACTS) :], strict=False))
        beyond = {"bit 36": maxphyaddr <= 36, "bit 51": maxphyaddr <= 51}
        names = [*(name for name, is_reserved in beyond.items() if is_reserved), *([] if nxe else ["NX"])]
        reserved = [*(side[name] for side in (pte, pde) for name in names), pde["bit 13"]]
        unused = [side[name] for side in (pte, pde) for name, is_reserved in beyond.items() if not is_reserved]
        bad = sum((x.astype(np.int8) for x in reserved), np.zeros(len(number), np.int8)) > 1
        for x in (*unused, pde["bit 13"] & ~pde["PS"]):
            bad |= x
        keep = np.flatnonzero(~bad)[::stride]
        return cls(
            {name: x[keep] for name, x in pte.items()}, {name: x[keep] for name, x in pde.items()}, facts[-2][keep],
            facts[-1][keep],
        )  # fmt: skip

    def words(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The values of PDE and PTE. Tables carry key 2, which must not count; leaves carry key 0 or 1."""
        pde, pte = (self._bits(side) for side in (self.pde, self.pte))
        leaf_key = np.where(self.key, np.uint64(_PTE["PK"].put(0, 1)), np.uint64(0))
        table = np.uint64(TABLES[4] | _PTE["PK"].put(0, 2))
        return pde | np.where(self.pde["PS"], np.uint64(PA) | leaf_key, table), pte | np.uint64(PA) | leaf_key

    def _bits(self, side: dict[str, Flags]) -> NDArray[np.uint64]:
        word = np.zeros(len(self), np.uint64)
        for name, flags in side.items():
            word |= np.where(flags, np.uint64(_BITS[name]), np.uint64(0))
        return word


@dataclass(frozen=True, slots=True)
class Attempt:
    """The facts that are the same for all tables of one run."""

    nxe: bool
    wp: bool
    pke: bool
    ad: bool
    wd: bool
    user: bool
    write: bool
    fetch: bool
    twice: bool

    def regime(self, levels: int, maxphyaddr: int) -> X86Regime:
        """The registers of this attempt; the keys 2 to 15 allow nothing."""
        rights = {f"AD{key}": 1 for key in range(2, 16)} | {"AD1": self.ad, "WD1": self.wd}
        registers = {
            "CR0": CR0.build(PE=1, PG=1, WP=self.wp),
            "CR3": TABLES[0] if levels == 5 else TABLES[1],
            "CR4": CR4.build(PAE=1, LA57=levels == 5, PKE=self.pke),
            "EFER": EFER.build(LME=1, LMA=1, NXE=self.nxe),
            "PKRU": PKRU.build(**rights),
        }
        return X86Regime.from_registers(registers, {"maxphyaddr": maxphyaddr})

    def access(self) -> X86Access:
        """The access itself."""
        kind = AccessKind.EXECUTE if self.fetch else AccessKind.WRITE if self.write else AccessKind.READ
        return X86Access(kind, self.user)


def attempts(nxe: bool) -> Iterator[Attempt]:
    """Every legal combination of switches and accesses."""
    keys = [(False, False, False), *((True, ad, wd) for ad in (False, True) for wd in (False, True))]
    kinds = ((False, False), (True, False), (False, True))
    either = (False, True)
    for wp, (pke, ad, wd), user, (write, fetch), twice in itertools.product(either, keys, either, kinds, either):
        yield Attempt(nxe, wp, pke, ad, wd, user, write, fetch, twice)


@dataclass(slots=True)
class Expected:
    """What has to come out: whether it faults, with which code, and the bits that are set afterwards."""

    fault: Flags
    code: NDArray[np.uint64]
    pde: NDArray[np.uint64]
    pte: NDArray[np.uint64]


def expect(tables: Tables, attempt: Attempt, *, user: bool, write: bool, fetch: bool) -> Expected:
    """The outcome by arithmetic on the facts alone."""
    pde, pte, large = tables.pde, tables.pte, tables.pde["PS"]
    bad_pde = pde["bit 51"] | pde["bit 36"] | pde["bit 13"] | (pde["NX"] & (not attempt.nxe))
    bad_pte = pte["bit 51"] | pte["bit 36"] | (pte["NX"] & (not attempt.nxe))
    small = pde["P"] & ~bad_pde & ~large
    absent = ~pde["P"] | (small & ~pte["P"])
    reserved = (pde["P"] & bad_pde) | (small & pte["P"] & bad_pte)
    mapped = ~absent & ~reserved
    writable = ~tables.read_only_pdpte & pde["W"] & (large | pte["W"])
    user_page = pde["U"] & (large | pte["U"])
    no_execute = pde["NX"] | (~large & pte["NX"])
    nothing = np.zeros(len(tables), np.bool_)
    denied = ~user_page if user else nothing
    if write and (user or attempt.wp):
        denied = denied | ~writable
    if fetch:
        denied = denied | no_execute
    key = nothing
    if attempt.pke and not fetch and (attempt.ad or (attempt.wd and write and (user or attempt.wp))):
        key = tables.key & user_page & mapped
    fault = ~mapped | denied | key
    told = PF_ERROR_CODE.build(US=user, WR=write, ID=fetch and attempt.nxe)
    code = np.where(fault, np.uint64(told), np.uint64(0))
    for bit, when in (("P", ~absent), ("RSVD", reserved), ("PK", key)):
        code |= np.where(fault & when, PF_ERROR_CODE.mask(bit), 0).astype(np.uint64)
    a, d = np.uint64(_BITS["A"]), np.uint64(_BITS["D"] if write else 0)
    zero = np.uint64(0)
    return Expected(
        fault, code, np.where(fault, zero, a | np.where(large, d, zero)), np.where(fault | large, zero, a | d)
    )


@dataclass(slots=True)
class Report:
    """How many combinations were walked, and what differed, as text."""

    combinations: int = 0
    faults: int = 0
    disagreements: list[str] = field(default_factory=list)
    disagreed: int = 0
    seconds: float = 0.0


def _view(tables: Tables, levels: int) -> tuple[WordsView, NDArray[np.uint64]]:
    """Five words a state, and a copy of what they were."""
    index = (VA >> 48 & 511, VA >> 39 & 511, VA >> 30 & 511, VA >> 21 & 511, VA >> 12 & 511)
    addresses = [table + 8 * i for table, i in zip(TABLES, index, strict=True)]
    pde, pte = tables.words()
    values = np.empty((len(tables), 5), np.uint64)
    values[:, 0], values[:, 1] = TABLES[1] | _OPEN, TABLES[2] | _OPEN
    values[:, 2] = TABLES[3] | _OPEN
    values[tables.read_only_pdpte, 2] = TABLES[3] | _OPEN & ~_PTE.mask("RW")
    values[:, 3], values[:, 4] = pde, pte
    offsets = np.arange(0, 5 * len(tables) + 1, 5, dtype=np.uint64)
    return words_view(offsets, np.tile(np.array(addresses, np.uint64), len(tables)), values.ravel()), values


def run(levels: int = 4, maxphyaddr: int = 36, stride: int = 1) -> Report:
    """Walk the space (each `stride`-th state of the tables) with 4 or 5 levels and compare.

    >>> report = run(stride=997)
    >>> report.combinations, report.disagreements
    (29160, [])
    """
    report, begin = Report(), time.perf_counter()
    for nxe in (False, True):
        tables = Tables.legal(nxe, maxphyaddr, stride)
        view, before = _view(tables, levels)
        out = np.zeros((len(tables), len(SLOTS)), np.uint64)
        taken, vas = np.ones(len(tables), np.bool_), np.full(len(tables), VA, np.uint64)
        for attempt in attempts(nxe):
            after = view.values.reshape(-1, 5)
            after[:] = before
            regime = attempt.regime(levels, maxphyaddr)
            accesses = [X86Access()] if attempt.twice else []
            for access in (*accesses, attempt.access()):
                row = np.array(pack(regime, access), np.uint64)
                translate_cases(view, np.broadcast_to(row, (len(tables), len(row))), vas, taken, out)
            _compare(tables, attempt, before, after, out, report)
    report.seconds = time.perf_counter() - begin
    return report


def _compare(tables: Tables, attempt: Attempt, before: Any, after: Any, out: Any, report: Report) -> None:
    end = expect(tables, attempt, user=attempt.user, write=attempt.write, fetch=attempt.fetch)
    pde, pte = end.pde, end.pte
    if attempt.twice:
        first = expect(tables, attempt, user=False, write=False, fetch=False)
        pde, pte = pde | first.pde, pte | first.pte
    fault, wanted = out[:, SLOT["fault"]], np.where(end.fault, FAULTS.index("#PF"), 0)
    good = (fault == wanted) & (out[:, SLOT["code"]] == end.code) & (end.fault | (out[:, SLOT["pa"]] == PA))
    good &= (after[:, 3] == before[:, 3] | pde) & (after[:, 4] == before[:, 4] | pte)
    good &= (after[:, :3] == before[:, :3]).all(axis=1)
    report.combinations += len(tables)
    report.faults += int(end.fault.sum())
    report.disagreed += int((~good).sum())
    for i in np.flatnonzero(~good)[: max(0, 10 - len(report.disagreements))].tolist():
        words = f"PDE {int(before[i, 3]):#018x} PTE {int(before[i, 4]):#018x}"
        answer = f"fault {int(fault[i])} code {int(out[i, SLOT['code']]):#x}, expected code {int(end.code[i]):#x}"
        report.disagreements.append(f"{attempt}: {words}: {answer}, PDE then {int(after[i, 3]):#018x}")


def main(arguments: list[str] | None = None) -> int:
    """The command: exit code 1 where anything disagrees."""
    parser = argparse.ArgumentParser(prog="python -m ptwalk.mmu.x86_64.access_space", description=__doc__)
    parser.add_argument("--levels", type=int, choices=(4, 5), default=4)
    parser.add_argument("--maxphyaddr", type=int, default=36, help="below 37 bit 36 is reserved too (default 36)")
    parser.add_argument("--stride", type=int, default=1, help="walk each n-th state of the tables only")
    options = parser.parse_args(arguments)
    report = run(options.levels, options.maxphyaddr, options.stride)
    print("left out:", *(f"  {what}: {why}" for what, why in EXCLUDED.items()), sep="\n")
    print(f"{report.combinations} combinations, {report.faults} of them fault, {options.levels} levels, "
          f"MAXPHYADDR {options.maxphyaddr}: {report.disagreed} disagreements in {report.seconds:.1f} s")  # fmt: skip
    for text in report.disagreements:
        print(text)
    return 1 if report.disagreed else 0


if __name__ == "__main__":
    raise SystemExit(main())
