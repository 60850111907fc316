"""Every script in examples/ runs as a user runs it, and says what somebody else knows to be true."""

from __future__ import annotations

import importlib.util
import lzma
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ptwalk.formats import qemu_tlb
from ptwalk.loaders import load
from ptwalk.mmu.spaces import leaves

EXAMPLES = Path(__file__).parents[2] / "examples"
LINUX = EXAMPLES / "testkit" / "linux-6.1.elf.xz"
FRAME = 0x1204E  # of A's page at 4 GiB, by the pagemap of the captured kernel
ARM64 = EXAMPLES / "captures" / "arm64-deb7.3-4k-lpa2.tar.xz"

# script and arguments: what its output must contain
SAID = {
    "walk_capture.py": [f"a user's write to 0x100000000 lands at {FRAME << 12:#x}; kernel ---, user rw-"],
    f"walk_capture.py {ARM64} A 0x100000000": ["PGD: ", "P4D: ", "PTE: valid=0x1", "lands at 0x59e6f000"],
    f"walk_capture.py {ARM64} A 0x1000": ["ends in Translation fault", "to blame: valid"],
    "compare_walkers.py": ["149168 addresses, 0 differ"],  # twice the 74584 lines of QEMU's `info tlb`
    # the bits of each level as Linux's Documentation/arch/arm64/memory.rst gives them for 4K and 64K pages
    "levels.py": [
        "L0     PGD  bits 47-39",
        "L1     PUD  bits 38-30",
        "L2     PMD  bits 41-29",
        "L3     PTE  bits 28-16",
    ],
    "fork_counters.py": ["total mapped pages", "entire mapcount"],
    "share_sweep.py": [],
}


def run(*arguments: object) -> str:
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("line", SAID)
def test_what_a_script_says(line: str) -> None:
    name, *arguments = line.split()
    output = run(EXAMPLES / name, *arguments)
    for text in SAID[line]:
        assert text in output


def test_every_script_is_run_here() -> None:
    named = {line.split()[0] for line in SAID} | {"trim_dump.py"}
    assert named == {path.name for path in EXAMPLES.glob("*.py")}


def test_pss_by_hand() -> None:
    """A alone: 2048 kB. A page of both counts half for each: n pages of B take 2n kB off A's. With the folio's average
    mapcount, (512 + n) / 512 rounded to the next integer, A's Pss halves once B maps half of the folio."""
    sweep = module("share_sweep")
    for pages in (1, 100, 255, 256, 511, 512):
        average = int((512 + pages) / 512 + 0.5)
        wanted = {"precise": 2048 - 2 * pages}
        wanted |= dict.fromkeys(("no-page-mapcount", "total-mapped-pages"), 2048 // average)
        assert sweep.pss(pages) == wanted


def test_the_fork_by_hand() -> None:
    """mapcount: one of A's PMD, one of B's; then 512 PTEs for B; then 256 of them. The series counts pages instead."""
    output = run(EXAMPLES / "fork_counters.py")
    assert re.findall(r"^  mapcount +(\d+) +\1 +\1$", output, re.MULTILINE) == ["1", "2", "513", "257"]
    assert re.findall(r"^  total mapped pages +(\d+)$", output, re.MULTILINE) == ["512", "1024", "1024", "768"]


def test_the_levels_by_hand() -> None:
    """0x5f_1234_5678 on x86-64: bits 47-39 are 0, 38-30 380, 29-21 145, 20-12 325, and 0x678 is left."""
    output = run(EXAMPLES / "levels.py", "5f_1234_5678").split("x86_64-5level")[0]
    assert re.findall(r"entry (\d+)", output) == ["0", "380", "145", "325"]
    assert "0x678" in output


def test_a_walker_that_forgets_large_pages_is_caught(tmp_path: Path) -> None:
    script = module("compare_walkers")

    def forgetful(machine: object, va: int) -> int | None:
        pa = script.textbook(machine, va)
        return None if pa is None else pa & ~0x1FF000

    different = script.compare(load(_plain(tmp_path)), forgetful)
    assert len(different) > 1000
    assert re.fullmatch(r"0x[0-9a-f]{16}: mine \d+, ptwalk \d+", different[0])


def test_a_trimmed_dump_keeps_the_tables_and_nothing_else(tmp_path: Path) -> None:
    """The dump with a page of data added: the trimmed one maps what QEMU's `info tlb` said, and the data is gone."""
    secret = b"a user's data 8)" * 256
    core = bytearray(lzma.decompress(LINUX.read_bytes()))
    (offset,), (count,) = struct.unpack_from("<Q", core, 32), struct.unpack_from("<H", core, 56)
    rows = bytes(core[offset : offset + count * 56])
    struct.pack_into("<Q", core, 32, len(core))
    struct.pack_into("<H", core, 56, count + 1)
    at = len(core) + len(rows) + 56
    (tmp_path / "vmcore").write_bytes(
        bytes(core) + rows + struct.pack("<IIQQQQQQ", 1, 4, at, 0, 0x20_A000, 4096, 4096, 0) + secret
    )
    assert load(tmp_path / "vmcore").memory.read(0x20_A000, 4096) == secret
    assert (
        run(EXAMPLES / "trim_dump.py", tmp_path / "vmcore", tmp_path / "tables") == f"{count - 1} pages with tables\n"
    )
    assert secret[:16] not in (tmp_path / "tables").read_bytes()
    machine = load(tmp_path / "tables")
    said = lzma.decompress((EXAMPLES / "testkit" / "linux-6.1.info-tlb.xz").read_bytes()).decode().splitlines()
    assert sorted(qemu_tlb(leaves(machine.memory, machine.regime()))) == sorted(said)


def test_a_trimmed_dump_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "tables").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        module("trim_dump").trim(_plain(tmp_path), tmp_path / "tables")
    assert (tmp_path / "tables").read_bytes() == b"mine"


def _plain(folder: Path) -> Path:
    path = folder / "linux.elf"
    path.write_bytes(lzma.decompress(LINUX.read_bytes()))
    return path
