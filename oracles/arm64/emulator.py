"""The bare-metal guest on QEMU: built once, started for each batch, cases in and answers out through RAM."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path

from ..tools import OracleError, require
from ..tools import run as run_tool

HERE = Path(__file__).parent
RAM, RAM_BYTES = 0x4000_0000, 2 << 30
HEADER, CASES, STRIDE, STUB_PA = 0x4020_0000, 0x4020_1000, 256, 0x4010_0000
TABLES = 0x8000_0000  # so aligned that a stage 2 block of any size leads from a table to a table, not to the guest
IN = ("op", "va", "SCTLR_EL1", "TCR_EL1", "TTBR0_EL1", "TTBR1_EL1", "MAIR_EL1", "HCR_EL2", "VTCR_EL2", "VTTBR_EL2",
      "pan", "stub_va")  # fmt: skip
OUT = ("par", "esr1", "far1", "esr2", "far2", "hpfar", "status", "elr1", "rx1", "selftrap")
BATCH = 50_000
BATCH_SECONDS = 900
_CFLAGS = ("-march=armv8.2-a+nosimd", "-mgeneral-regs-only", "-mstrict-align", "-O2", "-ffreestanding", "-fno-pic",
           "-fno-stack-protector", "-fno-builtin", "-nostdlib")  # fmt: skip


def build(folder: Path) -> Path:
    """Compile the guest into `folder`; the image to start."""
    require("aarch64-linux-gnu-gcc", "qemu-system-aarch64")
    compiler, guest = "aarch64-linux-gnu-gcc", folder / "guest.elf"
    run_tool([compiler, *_CFLAGS, "-c", HERE / "guest.c", "-o", folder / "guest.o"])
    run_tool([compiler, "-march=armv8.2-a", "-c", HERE / "start.S", "-o", folder / "start.o"])
    script = ("-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-T", HERE / "link.ld")
    run_tool([compiler, *script, folder / "start.o", folder / "guest.o", "-o", guest])
    return guest


def run_guest(guest: Path, cases: list[dict[str, int]], image: bytes) -> tuple[list[dict[str, int]], bytes]:
    """One guest run over the tables `image`: the answers, and the table memory afterwards."""
    blob = bytearray(CASES - HEADER + len(cases) * STRIDE)
    struct.pack_into("<8Q", blob, 0, 0, len(cases), 0, 0, 0, len(blob), TABLES, len(image))
    for i, case in enumerate(cases):
        words = [case.get(name, 0) for name in IN]
        struct.pack_into(f"<{len(IN)}Q", blob, CASES - HEADER + i * STRIDE, *words)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("c.bin", blob), ("t.bin", image)):
            (Path(folder) / name).write_bytes(data)
        command = ["qemu-system-aarch64", "-M", "virt,virtualization=on,gic-version=3", "-cpu", "max",
                   "-m", str(RAM_BYTES >> 20), "-nographic", "-nodefaults", "-monitor", "none", "-serial", "none",
                   "-semihosting-config", "enable=on,target=native", "-kernel", str(guest),
                   "-device", f"loader,file={folder}/c.bin,addr={HEADER:#x},force-raw=on",
                   "-device", f"loader,file={folder}/t.bin,addr={TABLES:#x},force-raw=on"]  # fmt: skip
        try:
            subprocess.run(command, cwd=folder, timeout=BATCH_SECONDS, check=True, capture_output=True)
            out = (Path(folder) / "out.bin").read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            raise OracleError(f"the guest did not come to its end: {error}") from error
    base = CASES - HEADER
    answers = [dict(zip(OUT, struct.unpack_from("<10Q", out, base + i * STRIDE + 128), strict=True))
               for i in range(len(cases))]  # fmt: skip
    return answers, out[len(blob) :]
