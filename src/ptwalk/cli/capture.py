"""`ptwalk capture OUTPUT --pid PID`."""

from __future__ import annotations

from pathlib import Path

from ..live_capture import main


def capture(output: Path, /, *, pid: list[int]) -> int:
    """Capture page tables and /proc of running processes of this Linux system; needs root.

    The script behind it, ptwalk/live_capture.py, needs nothing but Python and can be copied to another machine.

    Args:
        output: The .tar.xz to write.
        pid: A process; may be repeated. Processes are stopped while they are read.
    """
    return main([str(output), *(f"--pid={number}" for number in pid)])
