"""What the kernel's own VMCOREINFO note tells of its page tables, where a dump carries no control registers.

The names are those of kernel/vmcore_info.c and arch/*/kernel/vmcore_info.c: SYMBOL(swapper_pg_dir), NUMBER(phys_base),
NUMBER(pgtable_l5_enabled) on x86-64; NUMBER(kimage_voffset), NUMBER(VA_BITS), NUMBER(TCR_EL1_T1SZ) on arm64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..arch.arm64.registers import SCTLR_EL1, TCR_EL1
from ..arch.errors import InputError
from ..arch.x86_64.registers import CR0, CR4, EFER

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000  # arch/x86/include/asm/page_64_types.h
_TG1 = {4096: 2, 16384: 1, 65536: 3}
_TG0 = {4096: 0, 16384: 2, 65536: 1}


@dataclass(frozen=True, slots=True)
class KernelRegisters:
    """Registers as the kernel that wrote the note must have set them, and a sentence on what was concluded."""

    registers: dict[str, int]
    note: str


def parse_vmcoreinfo(text: bytes) -> dict[str, str]:
    """The `KEY=value` lines of a VMCOREINFO note.

    >>> parse_vmcoreinfo(b"OSRELEASE=6.1.0\\nPAGESIZE=4096\\n\\0\\0")
    {'OSRELEASE': '6.1.0', 'PAGESIZE': '4096'}
    """
    lines = text.split(b"\0")[0].decode("ascii", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def kernel_registers(arch: str, info: Mapping[str, str]) -> KernelRegisters:
    """The registers of the kernel's own address space; InputError names the line that is missing or no number."""
    return _x86_64(info) if arch == "x86_64" else _arm64(info)


def _number(info: Mapping[str, str], key: str, base: int = 10) -> int:
    try:
        return int(info[key], base)
    except KeyError:
        raise InputError("the VMCOREINFO note lacks this line", field=key) from None
    except ValueError:
        raise InputError("not a number in the VMCOREINFO note", field=key, value=info[key]) from None


def _x86_64(info: Mapping[str, str]) -> KernelRegisters:
    symbol = _number(info, "SYMBOL(swapper_pg_dir)", 16)
    root = symbol - START_KERNEL_MAP + _number(info, "NUMBER(phys_base)")
    five = _number(info, "NUMBER(pgtable_l5_enabled)") if "NUMBER(pgtable_l5_enabled)" in info else 0
    registers = {
        "CR0": CR0.build(PE=1, WP=1, PG=1),
        "CR3": root,
        "CR4": CR4.build(PAE=1, PGE=1, LA57=five),
        "EFER": EFER.build(LME=1, LMA=1, NXE=1),
    }
    return KernelRegisters(
        registers, "no control registers: the kernel's root from VMCOREINFO, CR0, CR4 and EFER as Linux sets them"
    )


def _arm64(info: Mapping[str, str]) -> KernelRegisters:
    root = _number(info, "SYMBOL(swapper_pg_dir)", 16) - _number(info, "NUMBER(kimage_voffset)", 0)
    page = _number(info, "PAGESIZE")
    if page not in _TG1:
        raise InputError("not a page size of arm64", field="PAGESIZE", value=page)
    key = "NUMBER(TCR_EL1_T1SZ)"
    size = _number(info, key, 0) if key in info else 64 - _number(info, "NUMBER(VA_BITS)")
    registers = {
        "SCTLR_EL1": SCTLR_EL1.build(M=1),
        "TCR_EL1": TCR_EL1.build(T0SZ=size, T1SZ=size, TG0=_TG0[page], TG1=_TG1[page], IPS=5),
        "TTBR0_EL1": root & (1 << 64) - 1,
        "TTBR1_EL1": root & (1 << 64) - 1,
    }
    return KernelRegisters(
        registers, "no system registers: the kernel's root and sizes from VMCOREINFO, 48-bit physical addresses assumed"
    )
