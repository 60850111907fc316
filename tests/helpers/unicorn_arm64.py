"""Unicorn as an AArch64 oracle: a guest loop at EL2 executes AT instructions from a list in memory, PAR_EL1 comes back.

Each record holds the operation, the address and the EL1&0 registers, so that one emulator start answers a whole batch.
"""

import struct
from collections.abc import Mapping, Sequence

from unicorn import UC_ARCH_ARM64, UC_MODE_ARM, Uc
from unicorn.arm64_const import (
    UC_ARM64_REG_CP_REG,
    UC_ARM64_REG_PSTATE,
    UC_ARM64_REG_X19,
    UC_ARM64_REG_X20,
    UC_ARM64_REG_X21,
    UC_CPU_ARM64_MAX,
)

# op0, op1, CRn, CRm, op2
SYSTEM = {
    "SCTLR_EL1": (3, 0, 1, 0, 0),
    "TCR_EL1": (3, 0, 2, 0, 2),
    "TTBR0_EL1": (3, 0, 2, 0, 0),
    "TTBR1_EL1": (3, 0, 2, 0, 1),
    "MAIR_EL1": (3, 0, 10, 2, 0),
    "HCR_EL2": (3, 4, 1, 1, 0),
    "VTCR_EL2": (3, 4, 2, 1, 2),
    "VTTBR_EL2": (3, 4, 2, 1, 0),
    "PAR_EL1": (3, 0, 7, 4, 0),
    "SCR_EL3": (3, 6, 1, 1, 0),
    "SCTLR_EL2": (3, 4, 1, 0, 0),
}
FORMS = {
    "S1E1R": (1, 0, 7, 8, 0),
    "S1E1W": (1, 0, 7, 8, 1),
    "S1E0R": (1, 0, 7, 8, 2),
    "S1E0W": (1, 0, 7, 8, 3),
    "S1E1RP": (1, 0, 7, 9, 0),
    "S1E1WP": (1, 0, 7, 9, 1),
    "S12E1R": (1, 4, 7, 8, 4),
    "S12E1W": (1, 4, 7, 8, 5),
    "S12E0R": (1, 4, 7, 8, 6),
    "S12E0W": (1, 4, 7, 8, 7),
}
LOADED = tuple(SYSTEM)[:8]
CODE, LIST, LOW_BYTES, RECORD = 0x10000, 0x100000, 0x1000000, 96
RAM_BASE, RAM_BYTES = 0x4000_0000, 32 << 20
BATCH = (LOW_BYTES - LIST) // RECORD
ISB, NOP = 0xD5033FDF, 0xD503201F


def _system(encoding: tuple[int, int, int, int, int], register: int, *, read: bool = False) -> int:
    op0, op1, crn, crm, op2 = encoding
    return 0xD5000000 | read << 21 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | register


def _ldr(register: int, offset: int) -> int:
    return 0xF9400000 | offset // 8 << 10 | 20 << 5 | register


def _str(register: int, offset: int) -> int:
    return 0xF9000000 | offset // 8 << 10 | 20 << 5 | register


def _program() -> tuple[list[int], int, int]:
    """Instructions, and the word offsets of the end and of the table of AT instructions."""
    code = [_ldr(0, 0), _ldr(1, 8)]
    for i, name in enumerate(LOADED):
        code += [_ldr(2, 16 + 8 * i), _system(SYSTEM[name], 2)]
    code += [ISB, 0x8B0012AA, 0xD61F0140]  # add x10, x21, x0, lsl #4; br x10
    tail = len(code)
    code += [ISB, _system(SYSTEM["PAR_EL1"], 3, read=True), _str(3, 80)]
    code += [0x91000294 | RECORD << 10, 0xF1000673]  # add x20, x20, #RECORD; subs x19, x19, #1
    code += [0x54000001 | (-len(code) & 0x7FFFF) << 5]  # b.ne to the start
    end = len(code)
    code += [NOP] * (4 - end % 4)
    table = len(code)
    for encoding in FORMS.values():
        code += [_system(encoding, 1), 0x14000000 | (tail - len(code) - 1 & 0x3FFFFFF), NOP, NOP]
    return code, end, table


class UnicornOracle:
    """A processor model `max` with 32 MiB of RAM; `load` fills the RAM, `run` answers a batch."""

    def __init__(self) -> None:
        self.machine = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
        self.machine.ctl_set_cpu_model(UC_CPU_ARM64_MAX)
        self.machine.mem_map(0, LOW_BYTES)
        self.machine.mem_map(RAM_BASE, RAM_BYTES)
        self._set("SCR_EL3", 1 << 10 | 1 << 8 | 1)  # RW, HCE, NS
        code, end, table = _program()
        self.end, self.table = CODE + 4 * end, CODE + 4 * table
        self.machine.mem_write(CODE, struct.pack(f"<{len(code)}I", *code))

    def _set(self, name: str, value: int) -> None:
        op0, op1, crn, crm, op2 = SYSTEM[name]
        self.machine.reg_write(UC_ARM64_REG_CP_REG, (crn, crm, op0, op1, op2, value))

    def load(self, image: bytes) -> None:
        """Fill the RAM."""
        self.machine.mem_write(RAM_BASE, image)

    def run(self, cases: Sequence[tuple[str, int, Mapping[str, int]]], *, pan: bool = False) -> list[int]:
        """PAR_EL1 for each (AT form, VA, registers); PSTATE.PAN is `pan`."""
        forms = list(FORMS)
        answers: list[int] = []
        for start in range(0, len(cases), BATCH):
            part = cases[start : start + BATCH]
            records = b"".join(
                struct.pack("<10Q16x", forms.index(form), va, *(registers.get(name, 0) for name in LOADED))
                for form, va, registers in part
            )
            self.machine.mem_write(LIST, records)
            self.machine.reg_write(UC_ARM64_REG_PSTATE, 0x3C9 | pan << 22)  # EL2h
            self._set("SCTLR_EL2", 0x30C50830)  # EL2 translation off
            for register, value in (
                (UC_ARM64_REG_X20, LIST),
                (UC_ARM64_REG_X19, len(part)),
                (UC_ARM64_REG_X21, self.table),
            ):
                self.machine.reg_write(register, value)
            self.machine.emu_start(CODE, self.end)
            back = bytes(self.machine.mem_read(LIST, len(records)))
            answers += [value for (value,) in struct.iter_unpack("<80xQ8x", back)]
        return answers
