"""The guest on QEMU (memory shared with the host, many batches a boot) and on Bochs (disk in, port 0xE9 out)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import tools
from ..guest import BATCH_SECONDS, SharedGuest
from . import protocol as p

GUEST = Path(__file__).parent / "guest"
_CFLAGS = [
    "-m64", "-O2", "-ffreestanding", "-fno-pic", "-fno-pie", "-mno-red-zone", "-mgeneral-regs-only", "-mcmodel=small",
    "-fcf-protection=none", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-Wall", "-Wextra", "-nostdlib",
    "-static", "-Wl,--build-id=none", "-Wl,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments",
]  # fmt: skip
_CYLINDER, _SECTOR = 16 * 63 * 512, 512


def build(folder: Path) -> Path:
    """Compile the guest into `folder`; the 32-bit ELF file that QEMU's -kernel takes."""
    tools.require("gcc", "ld", "objcopy")
    whole, elf = folder / "guest64.elf", folder / "guest.elf"
    tools.run(["gcc", *_CFLAGS, "-T", GUEST / "link.ld", GUEST / "boot.S", GUEST / "guest.c", "-o", whole])
    tools.run(["objcopy", "-O", "elf32-i386", whole, elf])
    tools.run(["objcopy", "-O", "binary", whole, folder / "guest.bin"])
    return elf


def build_floppy(folder: Path) -> Path:
    """The floppy image whose boot sector enters the guest."""
    raw, image = folder / "floppy.bin", folder / "floppy.img"
    tools.run(["gcc", "-m32", "-c", GUEST / "floppy.S", "-o", folder / "floppy.o"])
    tools.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-e", "0", "-o", raw,
               folder / "floppy.o"])  # fmt: skip
    image.write_bytes(raw.read_bytes().ljust(1440 << 10, b"\0"))
    return image


class Qemu:
    """One boot of QEMU; `run` answers any number of cases."""

    program, profile, batch = "qemu-system-x86_64", "qemu-7.2", 20_000

    def __init__(self, depth: int, maxphyaddr: int) -> None:
        self._guest = SharedGuest(self.program, p.RAM)
        elf = build(self._guest.folder)
        self._guest.write(p.CONTROL, self._control(0, int(depth == 5)))
        machine = ["-cpu", f"max,phys-bits={maxphyaddr}", "-m", "256M", "-machine", "pc,memory-backend=ram"]
        self._guest.start([*machine, "-kernel", str(elf)], p.CONTROL + 4)

    def _control(self, count: int, la57: int = 0) -> bytes:
        return p.CONTROL_FORMAT.pack(0, 0, 0, count, la57, 0, p.TESTS, p.RESULTS)

    def run(self, cases: Sequence[p.Case]) -> list[p.Answer]:
        """The answers to at most `protocol.BATCH` cases."""
        self._guest.write(p.TESTS, b"".join(case.pack() for case in cases))
        self._guest.write(p.CONTROL, self._control(len(cases)))
        self._guest.run_batch(p.CONTROL)
        size = p.RESULT_BYTES
        found = self._guest.read(p.RESULTS, len(cases) * size)
        return [p.Answer.unpack(case, found[i * size : (i + 1) * size]) for i, case in enumerate(cases)]

    def close(self) -> None:
        """End the emulator and remove its files."""
        self._guest.close()


_BOCHS_CONFIG = """megs: 256
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
optramimage1: file={folder}/guest.bin, address=0x100000
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path={folder}/disk.img, cylinders={cylinders}, heads=16, spt=63
cpu: model={model}, count=1, ips=200000000, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none
floppya: 1_44={folder}/floppy.img, status=inserted
boot: floppy
port_e9_hack: enabled=1
display_library: rfb, options="timeout=0"
log: {folder}/log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""


class Bochs:
    """Bochs, booted anew for every batch."""

    program, profile, batch = "bochs", "bochs-2.7", 50_000
    _MODEL, _MARK = "tigerlake", b"PTWALK>>"

    def __init__(self, depth: int, maxphyaddr: int) -> None:
        tools.require(self.program)
        if (depth, maxphyaddr) != (4, 40):
            raise tools.OracleError("this model of Bochs 2.7 has 4 levels and MAXPHYADDR 40")
        self._folder = tempfile.TemporaryDirectory(prefix="ptwalk-oracle-")
        self.folder = Path(self._folder.name)
        build(self.folder)
        build_floppy(self.folder)

    def run(self, cases: Sequence[p.Case]) -> list[p.Answer]:
        """The answers to at most `protocol.BATCH` cases."""
        control = p.CONTROL_FORMAT.pack(1, 0, 0, len(cases), 0, 0, p.TESTS, p.RESULTS).ljust(_SECTOR, b"\0")
        disk = control + b"".join(case.pack() for case in cases)
        cylinders = max(20, -(-len(disk) // _CYLINDER) + 1)
        (self.folder / "disk.img").write_bytes(disk.ljust(cylinders * _CYLINDER, b"\0"))
        config = self.folder / "bochsrc"
        config.write_text(_BOCHS_CONFIG.format(folder=self.folder, cylinders=cylinders, model=self._MODEL))
        (self.folder / "disk.img.lock").unlink(missing_ok=True)
        done = subprocess.run(
            ["bochs", "-q", "-f", str(config)], input=b"c\nq\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False, timeout=BATCH_SECONDS, cwd=self.folder,
        )  # fmt: skip
        start, size = done.stdout.find(self._MARK) + len(self._MARK), p.RESULT_BYTES
        found = done.stdout[start : start + len(cases) * size]
        if start < len(self._MARK) or len(found) < len(cases) * size:
            raise tools.OracleError(f"Bochs gave no results: {done.stdout[-300:].decode(errors='replace')}")
        return [p.Answer.unpack(case, found[i * size : (i + 1) * size]) for i, case in enumerate(cases)]

    def close(self) -> None:
        """Remove its files."""
        self._folder.cleanup()


EMULATORS: dict[str, type[Qemu] | type[Bochs]] = {"qemu": Qemu, "bochs": Bochs}
