"""A dump far larger than this host's memory: opened, listed and reverse-mapped in a process that stays small."""

from __future__ import annotations

import subprocess
import sys

LOGICAL = 256 << 30

WRITE = """
import sys
import numpy as np
path, size = sys.argv[1], int(sys.argv[2])
U64 = np.uint64
frames, step = size >> 12, (size >> 12) // 2050  # tables spread over the whole of the sparse file
order = np.random.default_rng(7).permutation(2050).astype(np.uint64) * U64(step) + U64(1)
root, upper, middle, last = order[0], order[1], order[2:4], order[4:4 + 1024]
def put(file, frame, words):
    file.seek(int(frame) << 12)
    file.write(np.asarray(words, U64).tobytes())
with open(path, "wb") as file:
    file.truncate(size)
    put(file, root, [int(upper) << 12 | 0x67])
    put(file, upper, middle << U64(12) | U64(0x67))
    for number in range(2):
        put(file, middle[number], last[512 * number:512 * number + 512] << U64(12) | U64(0x67))
    numbers = np.arange(1024 * 512, dtype=U64)
    targets = numbers * U64(0x9E3779B1) % U64(frames)
    for number, frame in enumerate(last):
        put(file, frame, targets[512 * number:512 * number + 512] << U64(12) | U64(0x67))
print(hex(int(root) << 12))
"""

READ = """
import resource, sys
from pathlib import Path
import numpy as np
from ptwalk.loaders import load
from ptwalk.mmu.kernels.reverse import reverse_map
from ptwalk.mmu.kernels.spaces import leaves_in_parts
path, size, root, folder = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3], 16), Path(sys.argv[4])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
machine = load(path, arch="x86_64", root=root)
regime = machine.regime()
count = sum(len(part) for part in leaves_in_parts(machine.memory, regime, room=1 << 14))
listed = peak()
built = reverse_map(machine.memory, {"": regime}, folder=folder)
for number in (0, 1, 511, 512, 99_999, 524_287):
    pa = number * 0x9E3779B1 % (size >> 12) << 12
    assert number << 12 in [site.va for site in built.lookup(pa)], hex(pa)
print(count, len(built), listed - before, peak() - before)
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_a_dump_larger_than_memory_is_listed_and_reverse_mapped(tmp_path):
    dump = tmp_path / "sparse.raw"
    root = run(WRITE, dump, LOGICAL)[0]
    assert dump.stat().st_blocks * 512 < 64 << 20, "the file system keeps the holes"
    leaves, mapped, listed, peak = map(int, run(READ, dump, LOGICAL, root, tmp_path))
    assert leaves == mapped == 1 << 19
    assert listed < 256, "MiB: the kernels' own code, 24 MiB of tables and one part's leaves"
    assert peak < 1024, "MiB: with the files of 64 Mi frames' starts and half a million mappings, which may go"
