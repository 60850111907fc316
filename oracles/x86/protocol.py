"""What host and guest agree on: where things lie, and how a case and its result are packed (guest/map.h, guest.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

RAM = 256 << 20
CONTROL, TESTS, RESULTS = 0x200000, 0x1000000, 0x4000000
ROOTS = range(0x400000, 0x404000, 0x1000)
TABLES = range(0x440000, 0x460000, 0x1000)
CELLS = range(0x8000000, 0x10000000)
CONTROL_FORMAT = struct.Struct("<6I2Q")  # command, ready, done, count, la57, padding, cases, results
WORDS = 6
_TEST = struct.Struct(f"<2Q6I3B5x{WORDS}Q{WORDS}Q")
_RESULT = struct.Struct(f"<2I2Q{WORDS}Q")
TEST_BYTES, RESULT_BYTES = _TEST.size, _RESULT.size
BATCH = min((RESULTS - TESTS) // TEST_BYTES, (CELLS.start - RESULTS) // RESULT_BYTES)

LOAD, STORE, FETCH, RMW, DESCRIPTOR = range(5)
KIND_NAMES = ("load", "store", "fetch", "locked read-modify-write", "descriptor load")
WENT_THROUGH = (0x20, 0x21)  # the vectors of a fetched cell and of a stub's end
CR0, CR0_WP = 0x80000033, 1 << 16
CR4, SMEP, SMAP, PKE, PKS, LA57 = 0x620, 1 << 20, 1 << 21, 1 << 22, 1 << 24, 1 << 12
EFER, NXE, AC = 0x500, 1 << 11, 1 << 18


@dataclass(frozen=True)
class State:
    """The processor during a case: registers with the values that the guest gives them."""

    registers: dict[str, int]
    maxphyaddr: int


@dataclass
class Case:
    """One access, its processor state, and the words of the tables; every other word of the tables is 0."""

    state: State
    va: int
    kind: int
    cpl: int
    words: dict[int, int] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The case as the guest reads it."""
        r = self.state.registers
        pad = [0] * (WORDS - len(self.words))
        return _TEST.pack(
            self.va, r["CR3"], r["CR0"] & CR0_WP, r["CR4"] & (SMEP | SMAP | PKE | PKS), r["EFER"] & NXE, r["PKRU"],
            r["PKRS"], r["RFLAGS"], self.kind, self.cpl, len(self.words), *self.words, *pad, *self.words.values(), *pad,
        )  # fmt: skip

    def describe(self) -> dict[str, object]:
        """The case in hexadecimal, for the file of unexplained cases."""
        return {
            "registers": {name: hex(value) for name, value in self.state.registers.items()},
            "maxphyaddr": self.state.maxphyaddr,
            "access": f"{KIND_NAMES[self.kind]} at CPL {self.cpl}",
            "va": hex(self.va),
            "words": {hex(pa): hex(value) for pa, value in self.words.items()},
        }


@dataclass(frozen=True)
class Answer:
    """What a processor did: `vector` is None where the access went through, to `pa`; `after` are the words then."""

    vector: int | None
    error: int
    cr2: int
    pa: int
    after: tuple[int, ...]

    @classmethod
    def unpack(cls, case: Case, data: bytes) -> Answer:
        """The guest's result."""
        vector, error, cr2, pa, *after = _RESULT.unpack(data)
        words = tuple(after[: len(case.words)])
        if vector == WENT_THROUGH[case.kind != FETCH]:
            return cls(None, 0, 0, pa, words)
        return cls(vector, error, cr2, 0, words)

    def describe(self) -> dict[str, object]:
        """The answer in hexadecimal."""
        end = {"pa": hex(self.pa)} if self.vector is None else {"error": hex(self.error), "cr2": hex(self.cr2)}
        return {"vector": self.vector} | end | {"after": [hex(word) for word in self.after]}
