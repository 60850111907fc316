"""The second table: the same tables and addresses given to other tools; one that is not installed is said to be.

Each peer gets the image of one synthetic x86-64 space as a flat physical memory and a root, translates random mapped
addresses one by one through its own public interface, and has to agree with us on every one.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ptwalk.mmu.kernels import translate_many

from .scenes import Scene, scene

U64 = np.uint64
GOALS = {"drgn": 50, "MemProcFS": 30, "volatility3": 400, "unicorn": None}
MODULES = {"drgn": "drgn", "MemProcFS": "memprocfs", "volatility3": "volatility3", "unicorn": "unicorn"}
Translator = Callable[[int], int]


def _volatility3(stage: Scene, image: bytes) -> Translator:
    from volatility3.framework import contexts
    from volatility3.framework.layers import intel, physical

    context = contexts.Context()
    context.add_layer(physical.BufferDataLayer(context, "base", "base", buffer=image))
    context.config["x.memory_layer"], context.config["x.page_map_offset"] = "base", stage.root
    layer = intel.Intel32e(context, "x", "x")
    context.add_layer(layer)
    return lambda va: int(layer.translate(va)[0])


KERNEL_TEXT = 0xFFFF_FFFF_8000_0000  # where a kernel loaded at physical address 0 has its image
NOTE = (
    "OSRELEASE=6.8.0\nPAGESIZE=4096\nKERNELOFFSET=0\nCRASHTIME=1\nNUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\n"
    "SYMBOL(init_uts_ns)={root:x}\nSYMBOL(swapper_pg_dir)={root:x}\n"
)


def _core(image: bytes, root: int) -> bytes:
    """An ELF core with one segment and the note that makes drgn take it for a Linux kernel's."""
    text = NOTE.format(root=KERNEL_TEXT + root).encode()
    note = struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO".ljust(12, b"\0")
    note += text.ljust(-(-len(text) // 4) * 4, b"\0")
    head = b"\x7fELF\2\1\1".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 4, 0, 176, 0, 0, len(note), len(note), 4)
    head += struct.pack("<IIQQQQQQ", 1, 6, 4096, 0xFFFF_8880_0000_0000, 0, len(image), len(image), 4096)
    return (head + note).ljust(4096, b"\0") + image


def _drgn(stage: Scene, image: bytes) -> Translator:
    import drgn
    from _drgn import _linux_helper_follow_phys as follow

    program = drgn.Program()
    with tempfile.NamedTemporaryFile(suffix=".elf") as file:
        file.write(_core(image, stage.root))
        file.flush()
        program.set_core_dump(file.name)
    root = KERNEL_TEXT + stage.root
    return lambda va: int(follow(program, root, va))


def _unicorn(stage: Scene, image: bytes) -> Translator:
    import unicorn
    from unicorn import x86_const as x86

    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
    engine.mem_map(0, len(image))
    engine.mem_write(0, image)
    engine.reg_write(x86.UC_X86_REG_CR4, 0x20)
    engine.msr_write(0xC000_0080, 0x500)
    engine.reg_write(x86.UC_X86_REG_CR3, stage.root)
    engine.reg_write(x86.UC_X86_REG_CR0, 0x8000_0001)
    translate = getattr(engine, "vmem_translate", None)
    if translate is None:
        raise LookupError("its Python interface offers no translation without running code")
    return lambda va: int(translate(va, unicorn.UC_PROT_READ))


def _memprocfs(stage: Scene, image: bytes) -> Translator:
    raise LookupError("opens images of Windows systems only, not a bare root")


PEERS: dict[str, Callable[[Scene, bytes], Translator]] = {
    "drgn": _drgn,
    "MemProcFS": _memprocfs,
    "volatility3": _volatility3,
    "unicorn": _unicorn,
}


def run(short: bool) -> list[dict[str, object]]:
    """Print and return one row a peer: ns a walk, ours beside it, the ratio and its goal."""
    count = 2_000 if short else 20_000
    stage = scene(64 << 20, ram=32 << 20)
    vas = stage.addresses(1_000_000)
    batch = translate_many(stage.memory, stage.regime, vas)
    begin = time.process_time()
    batch = translate_many(stage.memory, stage.regime, vas)
    ours = (time.process_time() - begin) / len(vas) * 1e9
    image = ctypes.string_at(stage.words.ctypes.data, stage.words.nbytes).ljust(stage.ram, b"\0")
    mapped = np.flatnonzero(batch.ok)[:count]
    asked, wanted = vas[mapped].tolist(), batch.pa[mapped].tolist()
    print(f"\n{'peer':<14} {'its ns':>10} {'ours ns':>9} {'ratio':>8} {'goal':>6}   64 MiB, {len(asked)} walks")
    return [_row(name, make, stage, image, asked, wanted, ours) for name, make in PEERS.items()]


def _row(
    name: str, make: Any, stage: Scene, image: bytes, asked: list[int], wanted: list[int], ours: float
) -> dict[str, object]:
    row: dict[str, object] = {"peer": name, "ours_ns": ours, "goal": GOALS[name]}
    if importlib.util.find_spec(MODULES[name]) is None:
        row["why_not"] = "not installed"
    else:
        try:
            translate = make(stage, image)
            begin = time.process_time()
            got = [translate(va) for va in asked]
            row["ns"] = (time.process_time() - begin) / len(asked) * 1e9
            row["agrees"] = sum(a == b for a, b in zip(got, wanted, strict=True))
        except Exception as error:  # a peer may fail in any way of its own; the table says how
            row["why_not"] = f"{type(error).__name__}: {error}"
    if "why_not" in row:
        print(f"{name:<14} {row['why_not']}")
        return row
    row["ratio"] = row["ns"] / ours  # type: ignore[operator]
    goal = GOALS[name] or ""
    agreed = f"agrees on {row['agrees']}"
    print(f"{name:<14} {row['ns']:>10.0f} {ours:>9.2f} {row['ratio']:>8.0f} {goal:>6}   {agreed}")
    return row
