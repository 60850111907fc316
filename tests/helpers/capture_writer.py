"""Writes whole captures of kernels that never ran: tables built from a described layout, pagemap from the description.

Pagemap words come from the mappings as described, never from the tables.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

from ptwalk.loaders import load
from ptwalk.mmu.machine import Machine

PRESENT = 1 << 63


@dataclass
class Described:
    """A process's mappings: (va, pa, size, page size), all user and writable."""

    preset: str
    page_shift: int
    levels: int
    mappings: list[tuple[int, int, int, int]]
    lpa2: bool = False
    root: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mappings = sorted(self.mappings)

    def toml(self) -> str:
        text = f'preset = "{self.preset}"\n[[memory]]\nstart = 0\nsize = "64M"\n[tables]\nstart = 0\nsize = "16M"\n'
        text += '[[spaces]]\nname = "A"\n' + (f'root = "{self.root:#x}"\n' if self.root is not None else "")
        for va, pa, size, page in self.mappings:
            text += f'[[spaces.mappings]]\nva = "{va:#x}"\npa = "{pa:#x}"\nsize = {size}\npage_size = {page}\n'
        return text

    def capture(self, folder: Path) -> dict[str, bytes]:
        """The capture's files."""
        layout = folder / "layout.toml"
        layout.write_text(self.toml())
        machine = load(layout)
        page = 1 << self.page_shift
        pages = [pa for pa in range(0, 16 << 20, page) if any(machine.memory.read(pa, page))]
        files = {
            "meta.json": json.dumps(self.meta(machine)).encode(),
            "cp1/ptpages.idx": struct.pack(f"<{len(pages)}Q", *pages),
            "cp1/ptpages.bin": b"".join(machine.memory.read(pa, page) for pa in pages),
            "cp1/roots.json": json.dumps(self.roots(machine)).encode(),
            "cp1/A.pagemap.json": json.dumps(self.index()).encode(),
            "cp1/A.pagemap.bin": self.words(),
            "cp1/proc/A/smaps": self.smaps().encode(),
            "cp1/proc/A/stat": b"7 (a) b) S 1 1",
        }
        if machine.arch == "arm64":
            registers = {name: hex(x) for name, x in machine.registers.items()}
            registers["TTBR0_EL1"] = hex(machine.spaces["A"].registers["TTBR0_EL1"])
            files["cp1/sysregs1.json"] = json.dumps([[registers]]).encode()
        return files | self.files

    def meta(self, machine: Machine) -> dict[str, object]:
        arch = "x86" if machine.arch == "x86_64" else "arm64"
        uname = ["Linux", "(none)", "7.3.4", "#1", machine.arch]
        cr = {name: f"{machine.registers.get(name, 0):x}" for name in ("CR0", "CR3", "CR4", "EFER")}
        return {
            "arch": arch, "page_shift": self.page_shift, "levels": self.levels, "lpa2": self.lpa2, "uname": uname,
            "cr": cr,
        }  # fmt: skip

    def root_pa(self, machine: Machine) -> int:
        return machine.regime("A").trees[0].root

    def roots(self, machine: Machine) -> dict[str, object]:
        root = hex(self.root_pa(machine))
        return {"A": {"pid": 7, "pgd_phys": root, "all_matching_roots": [root], "seen_in_user_mode_cp5": [root]}}

    def index(self) -> list[list[object]]:
        index: list[list[object]] = []
        for va, _, size, _ in self.mappings:
            count = size >> self.page_shift
            first = sum(area[3] for area in index)  # type: ignore[misc]
            index.append([f"{va:x}", f"{va + size:x}", first, count])
        return index

    def words(self) -> bytes:
        words = [
            PRESENT | (pa + offset) >> self.page_shift
            for _, pa, size, _ in self.mappings
            for offset in range(0, size, 1 << self.page_shift)
        ]
        return struct.pack(f"<{len(words)}Q", *words)

    def smaps(self) -> str:
        return "".join(
            f"{va:x}-{va + size:x} rw-p 00000000 00:00 0 \nRss: 4 kB\nVmFlags: rd wr mr mw me ac \n"
            for va, _, size, _ in self.mappings
        )
