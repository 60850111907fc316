"""A batch guest on QEMU: its RAM is a file that the host maps, so cases and results cross without a monitor."""

from __future__ import annotations

import mmap
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from .tools import OracleError, require

BOOT_SECONDS, BATCH_SECONDS = 120, 600


class SharedGuest:
    """QEMU with `size` bytes of RAM in a file; offsets are from the start of RAM.

    The guest polls a command word for its next batch; it is stopped while nobody asks.
    """

    def __init__(self, program: str, size: int) -> None:
        require(program)
        self._program = program
        self._folder = tempfile.TemporaryDirectory(prefix="ptwalk-oracle-")
        self.folder = Path(self._folder.name)
        with (self.folder / "ram").open("w+b") as file:
            file.truncate(size)
            self._ram = mmap.mmap(file.fileno(), size)
        self._backend = f"memory-backend-file,id=ram,size={size},mem-path={self.folder / 'ram'},share=on"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: list[str], ready: int) -> None:
        """Boot, and wait until the word at offset `ready` is 1."""
        self._process = subprocess.Popen(
            [self._program, "-accel", "tcg", "-display", "none", "-nodefaults", "-no-reboot", "-object", self._backend,
             *arguments], stderr=subprocess.PIPE,
        )  # fmt: skip
        self._wait(ready, 1, BOOT_SECONDS)
        self._process.send_signal(signal.SIGSTOP)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes into RAM."""
        self._ram[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of RAM."""
        return self._ram[offset : offset + size]

    def run_batch(self, command: int) -> None:
        """Set the command word at this offset to 1 and wait until the guest has put it back to 0."""
        assert self._process is not None
        self.write(command, (1).to_bytes(4, "little"))
        self._process.send_signal(signal.SIGCONT)
        self._wait(command, 0, BATCH_SECONDS)
        self._process.send_signal(signal.SIGSTOP)

    def _wait(self, offset: int, value: int, seconds: float) -> None:
        assert self._process is not None
        end = time.monotonic() + seconds
        while int.from_bytes(self._ram[offset : offset + 4], "little") != value:
            if self._process.poll() is not None:
                said = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
                raise OracleError(f"{self._program} ended: {said.strip()[-400:]}")
            if time.monotonic() > end:
                raise OracleError(f"the guest has not answered for {seconds} seconds")
            time.sleep(0.002)

    def close(self) -> None:
        """End the emulator and remove its files."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._ram.close()
        self._folder.cleanup()
