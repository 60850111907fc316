"""The second table: the same tables and addresses given to other tools; one that is not installed is said to be.

Each peer gets the image of one synthetic x86-64 space as a flat physical memory and a root, translates random mapped
addresses through its own public interface, and has to agree with us on every one. Times are medians of processor time.
"""

from __future__ import annotations

import importlib.util
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ptwalk.mmu.kernels import translate_many

from .scenes import Scene, scene

U64 = np.uint64
ROUNDS = 9
GOALS = {"drgn": 50, "MemProcFS": 30, "volatility3": 400, "unicorn": None}
MODULES = {"drgn": "drgn", "MemProcFS": "memprocfs", "volatility3": "volatility3", "unicorn": "unicorn"}
Batch = Callable[[list[int]], list[int]]


def _each(translate: Callable[[int], int]) -> Batch:
    """A batch of one call a walk."""
    return lambda vas: [translate(va) for va in vas]


def _volatility3(stage: Scene, image: bytes) -> Batch:
    from volatility3.framework import contexts
    from volatility3.framework.layers import intel, physical

    context = contexts.Context()
    context.add_layer(physical.BufferDataLayer(context, "base", "base", buffer=image))
    context.config["x.memory_layer"], context.config["x.page_map_offset"] = "base", stage.root
    layer = intel.Intel32e(context, "x", "x")
    context.add_layer(layer)
    return _each(lambda va: int(layer.translate(va)[0]))


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


def _drgn(stage: Scene, image: bytes) -> Batch:
    import drgn
    from _drgn import _linux_helper_follow_phys as follow

    program = drgn.Program()
    with tempfile.NamedTemporaryFile(suffix=".elf") as file:
        file.write(_core(image, stage.root))
        file.flush()
        program.set_core_dump(file.name)
    root = KERNEL_TEXT + stage.root
    return _each(lambda va: int(follow(program, root, va)))


MOVE = bytes.fromhex("48ad 488b00 48ab e2f7")  # lodsq; mov rax, [rax]; stosq; loop: reads every address asked for


def _unicorn(stage: Scene, image: bytes) -> Batch:
    """Unicorn has no call that translates: emulated code reads each address, and what it read tells the frame."""
    import unicorn
    from unicorn import x86_const as x86

    engine, own = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64), len(image)  # `own`: where its code and data lie
    engine.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
    engine.mem_map(0, own + (4 << 20))
    engine.mem_write(0, image)
    engine.mem_write(stage.root, struct.pack("<Q", own | 0x27))
    engine.mem_write(own, struct.pack("<Q", own + 0x1000 | 0x27))
    blocks = own + (4 << 20) >> 21  # all of memory at its own address
    engine.mem_write(own + 0x1000, struct.pack(f"<{blocks}Q", *(i << 21 | 0xE7 for i in range(blocks))))
    code, data, out = own + 0x2000, own + 0x10_0000, own + 0x20_0000
    engine.mem_write(code, MOVE)
    engine.reg_write(x86.UC_X86_REG_CR4, 0x20)
    engine.msr_write(0xC000_0080, 0x500)
    engine.reg_write(x86.UC_X86_REG_CR3, stage.root)
    engine.reg_write(x86.UC_X86_REG_CR0, 0x8000_0001)

    def batch(vas: list[int]) -> list[int]:
        engine.mem_write(data, struct.pack(f"<{len(vas)}Q", *(va & ~7 for va in vas)))
        for name, value in {"RSI": data, "RDI": out, "RCX": len(vas)}.items():
            engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), value)
        engine.emu_start(code, code + len(MOVE))
        words = struct.unpack(f"<{len(vas)}Q", engine.mem_read(out, 8 * len(vas)))
        return [word | va & 7 for word, va in zip(words, vas, strict=True)]

    return batch


def _memprocfs(stage: Scene, image: bytes) -> Batch:
    """MemProcFS takes a bare root for a system that it does not know, with one process."""
    import memprocfs

    with tempfile.NamedTemporaryFile(suffix=".raw") as file:
        file.write(image)
        file.flush()
        machine = memprocfs.Vmm(["-device", f"file://{file.name}", "-dtb", hex(stage.root), "-norefresh"])
        memory = machine.process_list()[0].memory
    return _each(memory.virt2phys)


PEERS: dict[str, Callable[[Scene, bytes], Batch]] = {
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
    batch, times = translate_many(stage.memory, stage.regime, vas), []
    for _ in range(ROUNDS):
        begin = time.process_time()
        batch = translate_many(stage.memory, stage.regime, vas)
        times.append((time.process_time() - begin) / len(vas) * 1e9)
    ours = statistics.median(times)
    words = np.arange(stage.ram >> 3, dtype=U64) << U64(3)  # every word but the tables' tells its own address
    words[: len(stage.words)] = stage.words
    image = words.tobytes()
    mapped = np.flatnonzero(batch.ok & (batch.pa >= U64(stage.words.nbytes)))[:count]
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
            times = []
            for _ in range(ROUNDS):
                begin = time.process_time()
                got = translate(asked)
                times.append((time.process_time() - begin) / len(asked) * 1e9)
            row["ns"] = statistics.median(times)
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
