"""Unicorn (a QEMU-derived processor) as a witness: one random translation case at a time, in long mode.

A case is a handful of page-table entries, the registers that decide, and one access. Cells of 8 bytes fill the memory
behind the pages; each is the program `mov eax, <its own number>; int 0x20`, so that a load, a store and a fetch all
prove which physical address they reached.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
from dataclasses import dataclass

import unicorn as uc
from unicorn import x86_const as reg

RAM, CELLS = 64 << 20, 32 << 20
ROOT, STUB, STACK = 0x400000, 0x300000, 0x500000
TABLES = range(0x1000000, 0x1010000, 0x1000)
USER_ALIAS = 0x40000000  # where ring 3 sees the stub
EFER, STAR = 0xC0000080, 0xC0000081
LME_LMA_SCE, NXE = 0x501, 0x800
PE_MP_NE_PG, WP = 0x80000023, 0x10000
PAE_OSFXSR, LA57, SMEP, SMAP, PKE = 0x620, 1 << 12, 1 << 20, 1 << 21, 1 << 22
AC = 1 << 18
MAXPHYADDR = 40
LOAD, STORE, FETCH, RMW = range(4)
CODE = {LOAD: "488b02 f4", STORE: "c702a5a5a5a5 f4", FETCH: "ffe2", RMW: "f0830a00 f4"}
AT_END = {LOAD: 3, STORE: 6, RMW: 4}
STORED = 0xA5A5A5A5
SYSRET_AT, WRPKRU_AT = 0x200, 0x280


@dataclass
class Case:
    """Entries by address, registers, the access."""

    words: dict[int, int]
    registers: dict[str, int]
    va: int
    kind: int
    user: bool


@dataclass
class Seen:
    """What the processor did: 0x20 stands for an access that went through; `pa` is where it went."""

    vector: int
    error: int
    cr2: int
    pa: int | None
    words: dict[int, int]


def cell(pa: int) -> bytes:
    return b"\xb8" + struct.pack("<I", pa >> 3) + b"\xcd\x20\x90"


def make_case(rng: random.Random, la57: bool) -> Case:
    """A random case: mostly a path to a leaf, with rights, keys and now and then something illegal in it."""
    depth = 5 if la57 else 4
    leaf = rng.choices((1, 2, 3), (5, 4, 2))[0]
    registers = {
        "CR0": PE_MP_NE_PG | (WP if rng.random() < 0.7 else 0),
        "CR3": ROOT,
        "CR4": PAE_OSFXSR | (LA57 if la57 else 0) | sum(b for b in (SMEP, SMAP, PKE) if rng.random() < 0.5),
        "EFER": LME_LMA_SCE | (NXE if rng.random() < 0.8 else 0),
        "RFLAGS": 2 | (AC if rng.random() < 0.4 else 0),
        "PKRU": rng.getrandbits(32) & rng.getrandbits(32),
    }
    shift = 3 + 9 * leaf
    offset = rng.randrange(CELLS, RAM) & ~7 if leaf == 3 else rng.getrandbits(shift) & ~7
    page = 0 if leaf == 3 else rng.randrange(CELLS, RAM) >> shift << shift
    va = rng.randrange(1, 512) << 3 + 9 * depth | rng.getrandbits(9 * depth + 3) >> shift << shift | offset
    if va >> 11 + 9 * depth & 1:
        va |= ~0 << 12 + 9 * depth
    va &= (1 << 64) - 1
    if rng.random() < 0.03:
        va ^= 1 << rng.randrange(12 + 9 * depth, 64)
    words, table = {}, ROOT
    for level in range(depth, leaf - 1, -1):
        at = table + (va >> 3 + 9 * level & 511) * 8
        if level == leaf and at in words:
            return make_case(rng, la57)  # would map a table as the page, where no cells lie
        table = table if level < depth and rng.random() < 0.02 else rng.choice(TABLES)
        words.setdefault(at, _entry(rng, level, page if level == leaf else table, is_leaf=level == leaf))
        if level > leaf:
            table = words[at] & 0xFFFFFF000  # an entry that is used twice says where it goes
            if table not in TABLES and table != ROOT:
                break
    return Case(words, registers, va, rng.choices((LOAD, STORE, FETCH, RMW), (4, 4, 3, 1))[0], rng.random() < 0.5)


def _entry(rng: random.Random, level: int, address: int, *, is_leaf: bool) -> int:
    raw = address
    for bit, chance in ((0, 0.96), (1, 0.8), (2, 0.75), (5, 0.3), (6, 0.3), (63, 0.12)):
        raw |= (rng.random() < chance) << bit
    for bit in (3, 4, 8, 9, 10, 11, *range(52, 63)):
        raw |= (rng.random() < 0.2) << bit
    if is_leaf and level > 1:
        raw |= 1 << 7 | (rng.random() < 0.2) << 12
    elif level == 1 or (level > 3 and rng.random() < 0.02):
        raw |= (level > 1 or rng.random() < 0.2) << 7
    if rng.random() < 0.04:
        raw |= 1 << rng.randrange(MAXPHYADDR, 52)
    if is_leaf and level > 1 and rng.random() < 0.04:
        raw |= 1 << rng.randrange(13, 3 + 9 * level)
    return raw


class UnicornX86:
    """One processor with its own RAM; 4 or 5 levels are fixed for its life."""

    def __init__(self, la57: bool) -> None:
        self.ram = mmap.mmap(-1, RAM)
        self.la57 = la57
        for pa in range(CELLS, RAM, 8):
            self.ram[pa : pa + 8] = cell(pa)
        for kind, code in CODE.items():
            self._put(STUB + 64 * kind, bytes.fromhex(code))
        self._put(STUB + SYSRET_AT, bytes.fromhex("480f07"))
        self._put(STUB + WRPKRU_AT, bytes.fromhex("0f01ef f4"))
        self._map_ourselves()
        self.cpu = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self.cpu.ctl_set_cpu_model(reg.UC_CPU_X86_ICELAKE_SERVER)
        self.cpu.ctl_set_tlb_mode(uc.UC_TLB_CPU)
        host = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        self.cpu.mem_map_ptr(0, RAM, uc.UC_PROT_ALL, host)
        self.cpu.reg_write(reg.UC_X86_REG_CR3, ROOT)
        self.cpu.reg_write(reg.UC_X86_REG_CR4, PAE_OSFXSR | (LA57 if la57 else 0))
        self.cpu.msr_write(EFER, LME_LMA_SCE)
        self.cpu.msr_write(STAR, 0x13 << 48 | 0x08 << 32)
        self.cpu.reg_write(reg.UC_X86_REG_CR0, PE_MP_NE_PG)
        self.event: int | None = None
        self.cpu.hook_add(uc.UC_HOOK_INTR, self._on_interrupt)
        self.fresh = self.cpu.context_save()
        self.scratch = self.cpu.context_save()
        self.error_at = self._find_error_code()

    def _put(self, pa: int, data: bytes) -> None:
        self.ram[pa : pa + len(data)] = data

    def _word(self, pa: int) -> int:
        return int.from_bytes(self.ram[pa : pa + 8], "little")

    def _set(self, pa: int, value: int) -> None:
        self.ram[pa : pa + 8] = value.to_bytes(8, "little")

    def _map_ourselves(self) -> None:
        """Slot 0 of the root: the first gigabyte for ring 0, and an alias of the stub for ring 3."""
        pml4, pdpt, low, alias = ROOT + 0x1000, ROOT + 0x2000, ROOT + 0x3000, ROOT + 0x4000
        for i in range(RAM >> 21):
            self._set(low + 8 * i, i << 21 | 0xE3)
        self._set(alias, 0xE7)
        self._set(alias + 8, 0x200000 | 0xE7)
        self._set(pdpt, low | 0x27)
        self._set(pdpt + 8, alias | 0x27)
        self._set(pml4, pdpt | 0x27)
        self._set(ROOT, (pml4 if self.la57 else pdpt) | 0x27)

    def _on_interrupt(self, cpu: uc.Uc, number: int, data: object) -> None:
        self.event = number
        cpu.emu_stop()

    def _start(self, at: int, count: int) -> None:
        self.event = None
        self.cpu.emu_start(at, 0, count=count)

    def _access(self, case: Case) -> None:
        cpu, r = self.cpu, case.registers
        cpu.reg_write(reg.UC_X86_REG_CR0, r["CR0"])
        cpu.reg_write(reg.UC_X86_REG_CR4, r["CR4"])
        cpu.msr_write(EFER, r["EFER"])
        cpu.ctl(uc.UC_CTL_TLB_FLUSH, uc.UC_CTL_IO_WRITE)
        if r["CR4"] & PKE:
            for name, value in (("RAX", r["PKRU"]), ("RCX", 0), ("RDX", 0)):
                cpu.reg_write(getattr(reg, f"UC_X86_REG_{name}"), value)
            self._start(STUB + WRPKRU_AT, 2)
        cpu.reg_write(reg.UC_X86_REG_RDX, case.va)
        cpu.reg_write(reg.UC_X86_REG_RSP, STACK)
        cpu.reg_write(reg.UC_X86_REG_RAX, 0)
        start = STUB + 64 * case.kind
        if case.user:
            target = case.va if case.kind == FETCH else USER_ALIAS + start
            cpu.reg_write(reg.UC_X86_REG_RCX, target)
            cpu.reg_write(reg.UC_X86_REG_R11, r["RFLAGS"])
            start = STUB + SYSRET_AT
        else:
            cpu.reg_write(reg.UC_X86_REG_EFLAGS, r["RFLAGS"])
        self._start(start, 8)

    def run(self, case: Case) -> Seen:
        """The access of one case; what it changed is put back."""
        self.cpu.context_restore(self.fresh)
        for pa, value in case.words.items():
            self._set(pa, value)
        self._access(case)
        seen = self._seen(case)
        for pa in case.words:
            self._set(pa, 0)
        return seen

    def _seen(self, case: Case) -> Seen:
        cpu = self.cpu
        words = {pa: self._word(pa) for pa in case.words}
        rip, rax = cpu.reg_read(reg.UC_X86_REG_RIP), cpu.reg_read(reg.UC_X86_REG_RAX)
        end = (USER_ALIAS if case.user else 0) + STUB + 64 * case.kind + AT_END.get(case.kind, 0)
        if case.kind == FETCH and self.event == 0x20:
            return Seen(0x20, 0, 0, (rax & 0xFFFFFFFF) << 3, words)
        if case.kind != FETCH and (self.event is None or (self.event == 13 and rip == end)):
            return Seen(0x20, 0, 0, (rax >> 8 & 0xFFFFFFFF) << 3 if case.kind == LOAD else None, words)
        error = self._error() if self.event == 14 else 0
        return Seen(self.event or 0, error, cpu.reg_read(reg.UC_X86_REG_CR2), None, words)

    def take_store(self, pa: int) -> bool:
        """Whether a store reached the cell at `pa`; the cell is put back."""
        changed = int.from_bytes(self.ram[pa : pa + 4], "little") == STORED
        self._put(pa, cell(pa))
        return changed

    def _raw_context(self) -> bytes:
        self.scratch = self.cpu.context_save()
        return bytes(self.scratch)

    def _error(self) -> int:
        return int.from_bytes(self._raw_context()[self.error_at : self.error_at + 4], "little")

    def _find_error_code(self) -> int:
        """Where the saved context keeps the error code: the one place that fits faults of known codes."""
        places: set[int] | None = None
        reserved = 1 | 1 << MAXPHYADDR
        registers = {"CR0": PE_MP_NE_PG | WP, "CR4": PAE_OSFXSR, "RFLAGS": 2, "EFER": LME_LMA_SCE | NXE}
        registers["CR4"] |= LA57 if self.la57 else 0
        va = 1 << (48 if self.la57 else 39)
        for kind, user, entry, code in (
            (LOAD, False, 0, 0), (STORE, False, 0, 2), (LOAD, True, 0, 4), (STORE, True, 0, 6), (FETCH, True, 0, 0x14),
            (FETCH, False, 0, 16), (LOAD, False, reserved, 9), (LOAD, True, reserved, 13), (STORE, True, reserved, 15),
        ):  # fmt: skip
            case = Case({ROOT + 8: entry}, registers, va, kind, user)
            self.cpu.context_restore(self.fresh)
            for pa, value in case.words.items():
                self._set(pa, value)
            self._access(case)
            assert self.event == 14, (self.event, case)
            raw = self._raw_context()
            here = {i for i in range(0, len(raw) - 3, 4) if raw[i : i + 4] == code.to_bytes(4, "little")}
            places = here if places is None else places & here
            for pa in case.words:
                self._set(pa, 0)
        assert places, "no place in the context fits"
        return min(places)
