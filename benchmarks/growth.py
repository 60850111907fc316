"""How cost grows with the mapped memory: leaves and the reverse map, out of core, 1 to 256 GiB."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from ptwalk.mmu.kernels import flat_view
from ptwalk.mmu.kernels.reverse import reverse_map
from ptwalk.mmu.kernels.spaces import leaves_in_parts

from .scenes import scene

GIB = 1 << 30
SIZES = (1, 4, 16, 64, 256)


def run(folder: Path, short: bool) -> list[dict[str, float]]:
    """Print and return ns a leaf by size; the largest resident size so far includes pages of the mapped files."""
    figures = []
    small = scene(64 << 20)  # compiles what is timed
    sum(len(part) for part in leaves_in_parts(flat_view(small.memory), small.regime))
    reverse_map(flat_view(small.memory), {"": small.regime}, ram=small.ram, folder=folder)
    print(f"\n{'mapped GiB':>10} {'leaves':>12} {'list ns':>9} {'reverse ns':>11} {'peak resident MiB':>18}")
    for size in SIZES[:1] if short else SIZES:
        stage = scene(size * GIB)
        view, lower = flat_view(stage.memory), stage.regime.trees[0]
        begin = time.process_time()
        count = sum(len(part) for part in leaves_in_parts(view, stage.regime, max_tables=1 << 20))
        middle = time.process_time()
        built = reverse_map(
            view, {"": stage.regime}, trees=lower.__eq__, ram=stage.ram, max_tables=1 << 20,
            folder=folder,
        )  # fmt: skip
        end = time.process_time()
        if len(built) != count:
            raise AssertionError("the reverse map lost leaves")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        listed, reverse = (middle - begin) / count * 1e9, (end - middle) / count * 1e9
        figures.append({"gib": size, "leaves": count, "list_ns": listed, "reverse_ns": reverse, "peak_mib": peak})
        print(f"{size:>10} {count:>12} {listed:>9.2f} {reverse:>11.2f} {peak:>18.0f}", flush=True)
        del built, stage, view
    return figures
