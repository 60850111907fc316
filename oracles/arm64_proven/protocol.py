"""What host and guest agree on: where things lie, and how a case and its result are packed (guest/guest.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

RAM_BASE, RAM_BYTES = 0x4000_0000, 1 << 30
CONTROL, TESTS, RESULTS = 0x4100_0000, 0x4200_0000, 0x4800_0000
HARNESS = 0x4000_0000
TABLES = range(0x6000_0000, 0x6100_0000)  # all words 0 but those of the case
FRAME = 0x10000
CELLS = range(0x7000_0000, 0x7100_0000)
WORDS = 44
_TEST = struct.Struct(f"<16Q{WORDS}Q{WORDS}Q")
_RESULT = struct.Struct(f"<9Q{WORDS}Q")
TEST_BYTES, RESULT_BYTES, BATCH = _TEST.size, _RESULT.size, 20_000

AT_FORMS = ("S1E1R", "S1E1W", "S1E0R", "S1E0W", "S1E1RP", "S1E1WP", "S12E1R", "S12E1W", "S12E0R", "S12E0W")
REAL_FORMS = ("LDR", "STR", "LDTR", "STTR", "SWP", "LDXR", "fetch")
FORMS = AT_FORMS + REAL_FORMS
REGISTERS = ("SCTLR_EL1", "TCR_EL1", "TTBR0_EL1", "TTBR1_EL1", "MAIR_EL1", "HCR_EL2", "VTCR_EL2", "VTTBR_EL2")
MARK = 0x0123_4567_89AB_CDEF  # what a store leaves
EC_SVC, EC_HVC, ABORTS = 0x15, 0x16, (0x20, 0x21, 0x24, 0x25)
ISS_TOLD = 0x1FF & ~(1 << 9)  # FSC, WnR, S1PTW, CM


def cell(pa: int) -> int:
    """The word at a cell: SVC with a number folded from its address, and the address / 8."""
    n = pa >> 3
    return 0xD400_0001 | fold(pa) << 5 | n << 32


def fold(pa: int) -> int:
    """The 16 bits by which a fetched cell is known."""
    return (pa >> 3 ^ pa >> 19) & 0xFFFF


@dataclass
class Case:
    """One access: the registers, where it is made from, and the words of the tables.

    `harness_va` is where the stubs are mapped for real accesses; `probe` is the cell in which a store is looked for.
    """

    registers: dict[str, int]
    form: str
    va: int
    el: int
    pan: bool
    harness_va: int
    words: dict[int, int] = field(default_factory=dict)
    probe: int = 0

    @property
    def is_real(self) -> bool:
        return self.form in REAL_FORMS

    def pack(self) -> bytes:
        """The case as the guest reads it."""
        pad = [0] * (WORDS - len(self.words))
        return _TEST.pack(
            FORMS.index(self.form), self.va, self.el, self.pan, *(self.registers[name] for name in REGISTERS),
            self.harness_va, MARK, self.probe, len(self.words), *self.words, *pad, *self.words.values(), *pad,
        )  # fmt: skip

    def describe(self) -> dict[str, object]:
        """The case in hexadecimal, for the file of unexplained cases."""
        return {
            "registers": {name: hex(value) for name, value in self.registers.items()},
            "access": f"{self.form} at EL{self.el}" if self.is_real else f"AT {self.form}",
            "pan": self.pan,
            "va": hex(self.va),
            "words": {hex(pa): hex(value) for pa, value in self.words.items()},
        }


@dataclass(frozen=True)
class Answer:
    """What a processor did.

    `end` is `PAR_EL1`, `went through`, `abort` or `strange`; `values` are PAR_EL1, the physical address, or (EL that
    takes the abort, exception class, ISS, FAR, HPFAR). HPFAR is None where it is not defined. `after` are the words.
    """

    end: str
    values: tuple[int | None, ...]
    after: tuple[int, ...]

    @classmethod
    def unpack(cls, case: Case, data: bytes) -> Answer:
        """The guest's result."""
        par, esr2, far2, hpfar, esr1, far1, loaded, own, probe, *after = _RESULT.unpack(data)
        words = tuple(after[: len(case.words)])
        if own:
            return cls("strange", (own, esr2, esr1), words)
        if not case.is_real:
            return cls("PAR_EL1", (par,), words)
        first, second = esr1 >> 26, esr2 >> 26
        if second in ABORTS:
            return cls("abort", (2, second, esr2 & ISS_TOLD, far2, hpfar), words)
        if second == EC_HVC and first in ABORTS:
            return cls("abort", (1, first, esr1 & ISS_TOLD, far1, None), words)
        if (second, first) == (EC_HVC, EC_SVC):
            return cls("went through", (_where(case, esr1 & 0xFFFF, loaded, probe),), words)
        return cls("strange", (own, esr2, esr1), words)

    def describe(self) -> dict[str, object]:
        """The answer in hexadecimal."""
        values = [None if value is None else hex(value) for value in self.values]
        return {"end": self.end, "values": values, "after": [hex(word) for word in self.after]}


def _where(case: Case, number: int, loaded: int, probe: int) -> int:
    """The physical address that the access reached; -1 where the signs do not fit one."""
    if case.form == "fetch":
        return case.probe if number == fold(case.probe) else -1
    told = loaded >> 32 << 3
    read = told if loaded == cell(told) and number == 0 else -1
    written = case.probe if probe == MARK and number == 0 else -1
    if case.form in ("STR", "STTR"):
        return written
    return read if case.form != "SWP" or read == written else -1
