"""The guest on QEMU (memory shared with the host, many batches a boot) and on Bochs (disk in, port 0xE9 out)."""

from __future__ import annotations

import mmap
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .. import tools
from . import protocol as p

GUEST = Path(__file__).parent / "guest"
_CFLAGS = [
    "-m64", "-O2", "-ffreestanding", "-fno-pic", "-fno-pie", "-mno-red-zone", "-mgeneral-regs-only", "-mcmodel=small",
    "-fcf-protection=none", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-Wall", "-Wextra", "-nostdlib",
    "-static", "-Wl,--build-id=none", "-Wl,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments",
]  # fmt: skip
BOOT_SECONDS, BATCH_SECONDS = 120, 600
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
        tools.require(self.program)
        self._folder = tempfile.TemporaryDirectory(prefix="ptwalk-oracle-")
        folder = Path(self._folder.name)
        elf, ram = build(folder), folder / "ram"
        with ram.open("w+b") as file:
            file.truncate(p.RAM)
            self._ram = mmap.mmap(file.fileno(), p.RAM)
        self._control(la57=int(depth == 5))
        self._process = subprocess.Popen(
            [self.program, "-accel", "tcg", "-cpu", f"max,phys-bits={maxphyaddr}", "-m", "256M", "-object",
             f"memory-backend-file,id=ram,size=256M,mem-path={ram},share=on", "-machine", "pc,memory-backend=ram",
             "-kernel", str(elf), "-display", "none", "-nodefaults", "-no-reboot"], stderr=subprocess.PIPE,
        )  # fmt: skip
        self._wait(4, 1, BOOT_SECONDS)
        self._process.send_signal(signal.SIGSTOP)  # the guest polls for its next batch: not while nobody asks

    def _control(self, command: int = 0, count: int = 0, la57: int = 0) -> None:
        at = p.CONTROL
        self._ram[at + 12 : at + 24] = count.to_bytes(4, "little") + la57.to_bytes(8, "little")
        self._ram[at + 24 : at + 40] = p.TESTS.to_bytes(8, "little") + p.RESULTS.to_bytes(8, "little")
        self._ram[at : at + 4] = command.to_bytes(4, "little")

    def _wait(self, offset: int, value: int, seconds: float) -> None:
        """Wait until a word of the control page has this value."""
        at, end = p.CONTROL + offset, time.monotonic() + seconds
        while int.from_bytes(self._ram[at : at + 4], "little") != value:
            if self._process.poll() is not None:
                said = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
                raise tools.OracleError(f"{self.program} ended: {said.strip()[-400:]}")
            if time.monotonic() > end:
                raise tools.OracleError(f"the guest has not answered for {seconds} seconds")
            time.sleep(0.002)

    def run(self, cases: Sequence[p.Case]) -> list[p.Answer]:
        """The answers to at most `protocol.BATCH` cases."""
        data = b"".join(case.pack() for case in cases)
        self._ram[p.TESTS : p.TESTS + len(data)] = data
        self._control(command=1, count=len(cases))
        self._process.send_signal(signal.SIGCONT)
        self._wait(0, 0, BATCH_SECONDS)
        self._process.send_signal(signal.SIGSTOP)
        size = p.RESULT_BYTES
        found = self._ram[p.RESULTS : p.RESULTS + len(cases) * size]
        return [p.Answer.unpack(case, found[i * size : (i + 1) * size]) for i, case in enumerate(cases)]

    def close(self) -> None:
        """End the emulator and remove its files."""
        self._process.kill()
        self._process.communicate()
        self._ram.close()
        self._folder.cleanup()


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
