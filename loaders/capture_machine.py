"""A checkpoint of a capture becomes a Machine: everything follows from the captured registers, nothing is assumed.

A process with page-table isolation has two roots 4 KiB apart: the kernel's half at the even page (its space is named
by the tag), the user's half at the odd one (`tag:user`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..arch.errors import InputError
from ..mmu.machine import Machine, Space
from .capture import Capture, Checkpoint, Root
from .checked import parse_hex
from .options import Options
from .overrides import apply_overrides
from .qemu_text import NAMES, parse_info_registers

_PTI_USER = 1 << 12  # arch/x86/mm/pti.c: the user's root follows the kernel's
_CPUINFO_SIZES = re.compile(r"^address sizes\s*: (\d{1,2}) bits physical", re.MULTILINE | re.ASCII)
_CPUINFO_FLAGS = re.compile(r"^flags\s*: (.*)$", re.MULTILINE)


def load_capture(path: Path, options: Options) -> Machine:
    """The Machine at a checkpoint (default: the latest of those with the most processes)."""
    machine = machine_of(Capture(path).checkpoint(options.checkpoint))
    apply_overrides(machine, options)
    return machine


def machine_of(checkpoint: Checkpoint) -> Machine:
    """Memory, registers and address spaces of one checkpoint."""
    capture = checkpoint.capture
    machine = Machine(
        arch=capture.arch,
        memory=checkpoint.memory(),
        registers={},
        kernel=capture.kernel,
        source=str(capture.path),
        format="capture",
        notes=[f"checkpoint {checkpoint.number} of {', '.join(map(str, capture.checkpoints))}"],
    )
    fill = _fill_x86_64 if capture.arch == "x86_64" else _fill_arm64
    fill(machine, checkpoint)
    return machine


def pti_halves(root: Root) -> tuple[int, int] | None:
    """The kernel's and the user's root where the process has both, None otherwise.

    >>> pti_halves(Root("A", 1, 0x2000, (0x2000, 0x3000)))
    (8192, 12288)
    """
    known = {root.pgd_phys, *root.matching}
    kernel, user = root.pgd_phys & ~_PTI_USER, root.pgd_phys | _PTI_USER
    return (kernel, user) if kernel in known and user in known else None


def _fill_x86_64(machine: Machine, checkpoint: Checkpoint) -> None:
    machine.registers |= _x86_registers(checkpoint)
    machine.features |= _x86_features(checkpoint, machine.notes)
    _note_x86_depth(machine, checkpoint.capture)
    for tag, root in checkpoint.roots.items():
        halves = pti_halves(root)
        if halves is None:
            machine.spaces[tag] = Space(tag, {"CR3": root.pgd_phys}, root.pid)
            continue
        for name, cr3, half in ((tag, halves[0], "kernel"), (f"{tag}:user", halves[1], "user")):
            machine.spaces[name] = Space(name, {"CR3": cr3}, root.pid, f"{half} half (page-table isolation)")


def _x86_registers(checkpoint: Checkpoint) -> dict[str, int]:
    """CR0, CR3, CR4 and EFER of the first CPU, from this checkpoint's sample or from meta.json."""
    if checkpoint.has("regs.json"):
        samples = checkpoint.json("regs.json").items()
        cpus = parse_info_registers(samples[0].text()) if samples else []
        if cpus:
            return {name: cpus[0][name] for name in NAMES}
    cr = checkpoint.capture.meta["cr"]
    return {name: cr[name].hex() for name in NAMES}


def _x86_features(checkpoint: Checkpoint, notes: list[str]) -> dict[str, int | str]:
    """MAXPHYADDR and 1-GByte pages as /proc/cpuinfo tells them."""
    text = checkpoint.text("proc/cpuinfo") if checkpoint.has("proc/cpuinfo") else ""
    sizes, flags = _CPUINFO_SIZES.search(text), _CPUINFO_FLAGS.search(text)
    if sizes is None or flags is None:
        notes.append("no /proc/cpuinfo: MAXPHYADDR and 1G pages are taken to be at their largest")
        return {}
    return {"maxphyaddr": int(sizes[1]), "gbpages": int("pdpe1gb" in flags[1].split())}


def _note_x86_depth(machine: Machine, capture: Capture) -> None:
    from ..arch.x86_64.registers import CR4

    depth = 5 if CR4["LA57"].get(machine.registers["CR4"]) else 4
    if depth != capture.levels:
        machine.notes.append(f"CR4 says {depth} levels and meta.json {capture.levels}: the register counts")


def _fill_arm64(machine: Machine, checkpoint: Checkpoint) -> None:
    from ..arch.arm64.registers import LAYOUTS

    machine.registers |= {name: x for name, x in _arm64_sample(checkpoint) if name in LAYOUTS}
    if "SCTLR_EL1" not in machine.registers:
        machine.notes.append("SCTLR_EL1 was not captured: translation and caches on, as Linux has them")
    if "ID_AA64MMFR0_EL1" not in machine.registers:
        machine.notes.append("no ID registers were captured: the processor has what the control registers ask for")
    if "TCR_EL1" not in machine.registers:
        raise InputError("the register sample lacks TCR_EL1", file=checkpoint.capture.path, field="TCR_EL1")
    _check_arm64_geometry(machine, checkpoint.capture)
    _fill_arm64_roots(machine, checkpoint)


def _fill_arm64_roots(machine: Machine, checkpoint: Checkpoint) -> None:
    from ..arch.arm64.registers import TTBR1_EL1
    from .ttbr import encode_ttbr

    tcr, path = machine.registers["TCR_EL1"], str(checkpoint.capture.path)
    if checkpoint.kernel_ttbr1 is not None:
        kept = machine.registers.get("TTBR1_EL1", 0) & TTBR1_EL1.mask("ASID", "CnP")
        machine.registers["TTBR1_EL1"] = kept | encode_ttbr(tcr, checkpoint.kernel_ttbr1, "__kernel_ttbr1", path)
    for tag, root in checkpoint.roots.items():
        ttbr0 = encode_ttbr(tcr, root.pgd_phys, f"roots.json: {tag}.pgd_phys", path)
        machine.spaces[tag] = Space(tag, {"TTBR0_EL1": ttbr0}, root.pid)


def _arm64_sample(checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """The registers of the first CPU, from this checkpoint's sample or from meta.json."""
    name = f"sysregs{checkpoint.number}.json"
    if checkpoint.has(name):
        samples = checkpoint.json(name).items()
        cpus = samples[0].items() if samples else []
    else:
        cpus = checkpoint.capture.meta["sysregs_sample"].items()
    if not cpus:
        raise InputError("no register sample", file=checkpoint.capture.path, field=name)
    for register, node in cpus[0].pairs():
        if isinstance(node.value, str) and parse_hex(node.value) is not None:
            yield register, node.hex()


def _check_arm64_geometry(machine: Machine, capture: Capture) -> None:
    from ..arch.arm64.registers import TCR_EL1

    tcr = machine.registers["TCR_EL1"]
    shift = capture.page_shift
    if (told := {0: 12, 1: 16, 2: 14}.get(TCR_EL1["TG0"].get(tcr))) != shift:
        text = f"TCR_EL1.TG0 says pages of {told} address bits and meta.json {shift}"
        raise InputError(text, file=capture.path, field="page_shift", value=tcr)
    levels = -(-(64 - TCR_EL1["T0SZ"].get(tcr) - shift) // (shift - 3))
    if levels != capture.levels:
        machine.notes.append(f"TCR_EL1 says {levels} levels and meta.json {capture.levels}: the register counts")
