"""Walk one address of a captured process, and ask of every entry on the way what its bits mean.

python examples/walk_capture.py [CAPTURE] [PROCESS] [ADDRESS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from ptwalk.loaders import load
from ptwalk.mmu.walk import Access, AccessKind, Translation, finish

CAPTURE = Path(__file__).parent / "captures" / "x86_64-7.3.4-P.tar.xz"


def main(capture: str = str(CAPTURE), process: str = "A", address: str = "0x100000000") -> None:
    machine = load(capture)
    regime = machine.regime(process)
    print(
        f"{machine.arch}, process {process}: {regime.trees[0].register} says the root is at {regime.trees[0].root:#x}"
    )

    steps, end = finish(regime.walk(machine.memory, int(address, 16), Access(AccessKind.WRITE, user=True)))
    for step in steps:
        if step.kind is not None and step.raw is not None:
            bits = ", ".join(f"{name}={value:#x}" for name, value in step.kind.decode(step.raw).items() if value)
            print(f"{step.linux_name}: {bits}")

    if isinstance(end, Translation):
        print(f"a user's write to {address} lands at {end.pa:#x}; {end.rights.text()}")
    else:
        print(f"a user's write to {address} ends in {end.name}: {end.rule}; to blame: {end.bit or 'no single bit'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
