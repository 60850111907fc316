"""ELF cores: a writer of our own for the shapes, and the header that QEMU itself wrote over the RAM of a capture."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from capture_files import CAPTURES, files_of
from elf_writer import EM_386, EM_AARCH64, Core, Load, qemu_note

from ptwalk.arch.errors import InputError
from ptwalk.loaders import load
from ptwalk.mmu.walk import Access, AccessKind, Translation, outcome

CR = (0x80050033, 0x3000, 0x7506F0)
QEMU_NOTE = ("QEMU", 0, qemu_note(*CR))


def tables() -> bytes:
    """Five pages from 0x3000: CR3's table, one below the other, and a page; 0x401000 maps to the last."""
    pages = [bytearray(4096) for _ in range(5)]
    for page, (index, pa) in zip(pages, [(0, 0x4000), (0, 0x5000), (2, 0x6000), (1, 0x7000)], strict=False):
        struct.pack_into("<Q", page, index * 8, pa | 7)
    pages[4][:8] = b"ptwalk!!"
    return b"".join(map(bytes, pages))


def save(path: Path, core: Core) -> Path:
    path.write_bytes(core.write())
    return path


@pytest.mark.parametrize("gap", [0, 1, 7, 4095])
@pytest.mark.parametrize("many", [False, True])
def test_segments_lie_at_any_file_offset(tmp_path: Path, gap: int, many: bool) -> None:
    core = Core([Load(0, b"\x11" * 0x3000), Load(0x3000, tables(), gap=gap)], notes=[QEMU_NOTE], many=many)
    machine = load(save(tmp_path / "a.elf", core))
    result = outcome(machine.regime().walk(machine.memory, 0x401008, Access(AccessKind.READ, user=True)))
    assert isinstance(result, Translation)
    assert result.pa == 0x7008
    assert machine.memory.read(result.pa - 8, 8) == b"ptwalk!!"
    assert machine.registers["CR3"] == 0x3000
    assert machine.memory.read(0x2FFF, 2)[0] == 0x11


def test_writes_stay_in_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "a.elf", Core([Load(0x3000, tables())], notes=[QEMU_NOTE]))
    before = path.read_bytes()
    machine = load(path)
    machine.memory.write_uint(0x3000, 0x1234)
    assert machine.memory.read_uint(0x3000) == 0x1234
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["x86_64-7.3.4-P", "x86_64-7.3.4-N", "x86_64-deb6.1-nopti"])
def test_the_header_that_qemu_wrote(tmp_path: Path, name: str) -> None:
    """QEMU's headers and notes, the captured page tables where its program headers say: all text pages walk alike."""
    source = next(path for path in CAPTURES if path.name == f"{name}.tar.xz")
    files = files_of(source)
    header = files["dump-guest-memory.headers+notes.bin"]
    phnum = struct.unpack_from("<H", header, 56)[0]
    phoff = struct.unpack_from("<Q", header, 32)[0]
    loads = [struct.unpack_from("<IIQQQQQQ", header, phoff + 56 * i) for i in range(phnum)]
    pages = struct.iter_unpack("<Q", files["cp5/ptpages.idx"])
    path = tmp_path / "dump.elf"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(max(offset + size for _, _, offset, _, _, size, _, _ in loads))
        for i, (pa,) in enumerate(pages):
            offset = next(o + pa - p for kind, _, o, _, p, size, _, _ in loads if kind == 1 and p <= pa < p + size)
            file.seek(offset)
            file.write(files["cp5/ptpages.bin"][i * 4096 : i * 4096 + 4096])
    machine, captured = load(path), load(source)
    last = json.loads(files["cp5/regs.json"])[-1]
    assert [machine.spaces[f"cpu{i}"].registers["CR3"] for i in (0, 1)] == [
        int(x, 16) for x in re.findall(r"CR3=([0-9a-f]+)", last)
    ]
    for register, known in (("CR0", -1), ("CR4", -1), ("EFER", 0xD00)):  # SCE is not in the notes
        assert machine.registers[register] == int(re.findall(rf"{register}=([0-9a-f]+)", last)[0], 16) & known
    for text, cpu in zip(re.split(r"CPU#\d", last)[1:], ("cpu0", "cpu1"), strict=True):
        for register, short in (("RIP", "RIP"), ("RSP", "RSP"), ("RFLAGS", "RFL")):
            (digits,) = re.findall(rf"\b{short}=([0-9a-f]+)", text)
            assert machine.spaces[cpu].registers[register] == int(digits, 16)
    for va in range(0x401000, 0x490000, 0x1000):
        for space in captured.spaces:
            root = captured.spaces[space].registers["CR3"]
            one = outcome(machine.regime(root=root).walk(machine.memory, va, Access(user=True)))
            other = outcome(captured.regime(space).walk(captured.memory, va, Access(user=True)))
            assert isinstance(one, Translation) == isinstance(other, Translation)
            assert not isinstance(one, Translation) or one.pa == getattr(other, "pa", None)


def test_arm64_cores_hold_no_registers(tmp_path: Path) -> None:
    path = save(tmp_path / "a.elf", Core([Load(0x4000_0000, bytes(8192))], machine=EM_AARCH64))
    machine = load(path)
    assert machine.arch == "arm64"
    assert machine.notes == ["the file tells no control registers: name a preset and a root, or give the registers"]
    given = load(path, preset="arm64-4k-48", root=0x4000_1000)
    assert given.regime().describe()
    assert given.registers["TTBR0_EL1"] == 0x4000_1000
    with pytest.raises(InputError, match="preset: the preset is for x86_64, not arm64"):
        load(path, preset="x86_64-4level")


def test_the_real_arm64_header(tmp_path: Path) -> None:
    source = next(path for path in CAPTURES if path.name == "arm64-deb6.1-4k.tar.xz")
    path = tmp_path / "a.elf"
    path.write_bytes(files_of(source)["dump-guest-memory.headers+notes.bin"])
    with pytest.raises(InputError, match=r"p_filesz: the segment ends at 0x10001a70, the file at 0x1a70"):
        load(path)
    with path.open("r+b") as file:
        file.truncate(0x20001A70)
    machine = load(path)
    assert machine.memory.extents == ((0x4000_0000, 0x6000_0000),)
    last = json.loads(files_of(source)["cp5/sysregs5.json"])[-1][0]
    assert machine.registers["PC"] == int(last["pc"], 16)
    assert machine.registers["SP"] == int(last["sp"], 16)


def test_elf32_of_a_32_bit_guest(tmp_path: Path) -> None:
    note = ("QEMU", 0, qemu_note(0x80000011, 0x3000, 0x10))
    core = Core([Load(0x3000, tables())], notes=[note], machine=EM_386, bits=32)
    machine = load(save(tmp_path / "a.elf", core))
    assert machine.arch == "x86_64"
    assert machine.registers["CR4"] == 0x10
    assert machine.registers["EFER"] >> 10 & 1 == 0, "no long mode"


def test_vmcoreinfo_gives_the_kernels_root(tmp_path: Path) -> None:
    info = (
        b"OSRELEASE=7.3.4\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff81003000\n"
        b"NUMBER(phys_base)=-16777216\nNUMBER(pgtable_l5_enabled)=0\n"
    )
    core = Core([Load(0x3000, tables())], notes=[("VMCOREINFO", 0, info)])
    machine = load(save(tmp_path / "a.elf", core))
    assert machine.kernel == "7.3.4"
    assert machine.registers["CR3"] == 0x3000


def test_kcore_style_segments(tmp_path: Path) -> None:
    """/proc/kcore gives areas without RAM of their own the address -1, and the kernel's text twice."""
    data = tables()
    core = Core(
        [Load((1 << 64) - 1, b"vmalloc!" * 512), Load(0x4000, data[0x1000:0x2000]), Load(0x3000, data)],
        notes=[QEMU_NOTE],
    )
    machine = load(save(tmp_path / "a.elf", core))
    assert machine.memory.extents == ((0x3000, 0x8000),)
    assert "1 segments have no physical address and were passed over" in machine.notes


def _patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, offset, value)
    return bytes(out)


GOOD = Core([Load(0x3000, tables())], notes=[QEMU_NOTE]).write()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:10], "offset 0x0: no ELF header"),
        (GOOD[:40], "ends inside the ELF header"),
        (GOOD[:130], "ends inside the program headers"),
        (GOOD[:-1], "p_filesz: the segment ends at"),
        (_patched(GOOD, 4, "B", 7), "EI_CLASS: neither ELF32 nor ELF64"),
        (_patched(GOOD, 5, "B", 2), "EI_DATA: not little-endian"),
        (_patched(GOOD, 16, "<H", 2), "e_type: an ELF file, but not a core"),
        (_patched(GOOD, 18, "<H", 21), "e_machine: not a machine ptwalk knows"),
        (_patched(GOOD, 54, "<H", 32), "e_phentsize"),
        (_patched(GOOD, 32, "<Q", 1 << 60), "ends inside the program headers"),
        (_patched(GOOD, 56, "<H", 0xFFFF), "section header with the count of segments is missing"),
        (_patched(GOOD, 120 + 24, "<Q", (1 << 60)), "p_paddr: the bank ends beyond 56 address bits"),
        (_patched(GOOD, 64 + 32, "<Q", 30), "a note runs over the end of its segment"),
        (Core([Load(0x3000, tables())], notes=[("QEMU", 0, qemu_note(*CR, version=2))]).write(), "unknown version"),
        (Core([Load(0x3000, tables())], notes=[("QEMU", 0, qemu_note(*CR)[:200])]).write(), "wrong size"),
        (Core([]).write(), "no segment holds physical memory"),
        (Core([Load(0x3000, tables()), Load(0x4000, b"x" * 4096)]).write(), "two segments disagree about"),
        (Core([Load(0x3000, tables())] * 9).write(), None),
    ],
)
def test_damaged_cores(tmp_path: Path, data: bytes, message: str | None) -> None:
    path = tmp_path / "a.elf"
    path.write_bytes(data)
    if message is None:
        assert load(path).memory.extents == ((0x3000, 0x8000),)
        return
    with pytest.raises(InputError, match=re.escape(message)):
        load(path)
