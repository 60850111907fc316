"""Damaged files of every format: whatever is done to them, a machine or one InputError comes out, in time.

Real captures, ELF cores, layouts and raw images are cut, overwritten, stretched and spliced; what loads is walked.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from capture_files import EXAMPLES, SMALL, files_of, only, tar_xz, walk_members, write_directory
from capture_writer import Described
from dump_writers import diskdump, flattened, lime
from elf_writer import EM_386, EM_AARCH64, Core, Load, qemu_note
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptwalk.arch.errors import InputError, PtwalkError
from ptwalk.loaders import load
from ptwalk.loaders.listing import load_listing
from ptwalk.mmu.machine import Machine
from ptwalk.mmu.spaces import SpaceLimitError, leaves
from ptwalk.mmu.walk import Access, AccessKind, Fault, Translation, outcome
from ptwalk.verify import verify

WALKED = (0, 0x401000, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000, (1 << 64) - 8)

Mutation = Callable[[bytes], bytes]


def _overwrite(at: float, data: bytes) -> Mutation:
    def mutate(old: bytes) -> bytes:
        i = int(at * len(old))
        return old[:i] + data + old[i + len(data) :]

    return mutate


def _flip(at: float, bit: int) -> Mutation:
    def mutate(old: bytes) -> bytes:
        i = min(int(at * len(old)), len(old) - 1)
        return old[:i] + bytes([old[i] ^ 1 << bit]) + old[i + 1 :] if old else old

    return mutate


def _cut(at: float) -> Mutation:
    return lambda old: old[: int(at * len(old))]


def _remove(at: float, size: int) -> Mutation:
    return lambda old: old[: int(at * len(old))] + old[int(at * len(old)) + size :]


def _repeat(at: float, size: int) -> Mutation:
    return lambda old: old[: int(at * len(old))] + old[int(at * len(old)) :][:size] + old[int(at * len(old)) :]


PLACES = st.floats(0, 1, exclude_max=True) | st.floats(0, 0.02)  # headers are where it hurts
WORDS = st.sampled_from([0, 1, 7, 0x1000, 1 << 31, 1 << 32, 1 << 52, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
MUTATIONS = st.one_of(
    st.builds(_overwrite, PLACES, st.binary(min_size=1, max_size=64)),
    st.builds(_overwrite, PLACES, WORDS.map(lambda w: struct.pack("<Q", w))),
    st.builds(_flip, PLACES, st.integers(0, 7)),
    st.builds(_cut, PLACES),
    st.builds(_remove, PLACES, st.integers(1, 5000)),
    st.builds(_repeat, PLACES, st.integers(1, 5000)),
)


def small_capture() -> dict[str, bytes]:
    """One checkpoint of a real capture, one process, so that an example takes milliseconds."""
    files = only(walk_members(files_of(SMALL)), 5)
    keep = ("meta.json", "ptpages", "roots", "regs", "A.pagemap", "proc/A/smaps", "proc/A/stat", "cpuinfo")
    return {name: data for name, data in files.items() if any(part in name for part in keep)}


def tables() -> bytes:
    pages = [bytearray(4096) for _ in range(5)]
    for page, (index, pa) in zip(pages, [(0, 0x4000), (0, 0x5000), (2, 0x6000), (1, 0x7000)], strict=False):
        struct.pack_into("<Q", page, index * 8, pa | 7)
    return b"".join(map(bytes, pages))


NOTE = ("QEMU", 0, qemu_note(0x80050033, 0x3000, 0x7506F0))
INFO = b"OSRELEASE=7.3.4\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff81003000\nNUMBER(phys_base)=-16777216\n"
IOMEM = (
    b"00001000-0009fbff : System RAM\n000a0000-000bffff : PCI Bus 0000:00\n"
    b"00100000-7ffdcfff : System RAM\n  01000000-01ffffff : Kernel code\n"
)
LOADER_DATA = EXAMPLES.parent / "tests/data/loaders"
RAW: dict[str, Any] = {"preset": "x86_64-4level", "root": 0x3000}
SEEDS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "elf64": (Core([Load(0x3000, tables(), gap=3)], notes=[NOTE, ("CORE", 1, bytes(336))]).write(), {}),
    "elf64 many": (Core([Load(0x3000, tables())], notes=[NOTE], many=True).write(), {}),
    "elf64 vmcoreinfo": (Core([Load(0x3000, tables())], notes=[("VMCOREINFO", 0, INFO)]).write(), {}),
    "elf32": (Core([Load(0x3000, tables())], notes=[NOTE], machine=EM_386, bits=32).write(), {}),
    "elf arm64": (
        Core([Load(0x3000, tables())], machine=EM_AARCH64).write(),
        {"preset": "arm64-4k-48", "root": 0x3000},
    ),
    "lime": (lime({0: bytes(0x3000), 0x3000: tables()}), RAW),
    "kdump": (diskdump({3 + i: tables()[i * 4096 :][:4096] for i in range(5)}, info=INFO), {}),
    "kdump flattened": (flattened(diskdump({3 + i: tables()[i * 4096 :][:4096] for i in range(5)})), RAW),
    "raw": (bytes(0x3000) + tables(), RAW),
    "x86 layout": ((EXAMPLES / "layouts/x86_64.toml").read_bytes(), {}),
    "arm64 layout": ((EXAMPLES / "layouts/arm64.toml").read_bytes(), {}),
    "device tree": ((LOADER_DATA / "small.dtb").read_bytes(), {"arch": "arm64"}),
    "iomem": (IOMEM, {"preset": "x86_64-4level"}),
    "boot log": ((LOADER_DATA / "boot-6.1-q35-5G.log").read_bytes(), {"preset": "x86_64-4level"}),
    "tar.xz": (tar_xz(small_capture()), {}),
}
LISTINGS = {
    "ptdump x86": b"---[ Low Kernel Mapping ]---\n"
    b"0xffff888000000000-0xffff888000200000           2M     RW                 GLB NX pte\n"
    b"0xffff888000200000-0xffff888040000000        1022M     RW         PSE     GLB NX pmd\n" * 2,
    "ptdump arm64": b"0xffff000000200000-0xffff000000210000          64K PTE   RW NX SHD AF    CON  UXN MEM/NORMAL\n",
    "maps": b"00400000-00402000 r-xp 00000000 08:01 42                 /bin/true\n"
    b"00500000-00504000 rw-p 00000000 00:00 0                  [heap]\n",
}
TAR = lzma.decompress(SEEDS["tar.xz"][0])


def one_sentence(error: PtwalkError) -> None:
    """What every error has to be."""
    assert str(error)
    assert "\n" not in str(error)


def try_everything(path: Path, **options: Any) -> Machine | None:
    """Load and walk; only PtwalkErrors are let through, and they have to be one line."""
    try:
        machine = load(path, **options)
    except InputError as error:
        one_sentence(error)
        return None
    for space in (None, *list(machine.spaces)[:3]):
        try:
            regime = machine.regime(space)
        except InputError as error:
            one_sentence(error)
            continue
        for va in WALKED:
            for kind in AccessKind:
                try:
                    found = outcome(regime.walk(machine.memory, va, Access(kind, user=True)))
                except PtwalkError:  # a table outside memory, or a page that cannot be decompressed
                    continue
                assert isinstance(found, Translation | Fault)
    return machine


def test_the_seeds_load(tmp_path: Path) -> None:
    for name, (data, options) in SEEDS.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert try_everything(path, **options) is not None, name


SETTINGS = settings(
    max_examples=120,
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)


@pytest.mark.parametrize("name", SEEDS)
@SETTINGS
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_damaged_files(tmp_path: Path, name: str, mutations: list[Mutation]) -> None:
    data, options = SEEDS[name]
    for mutation in mutations:
        data = mutation(data)
    path = tmp_path / "file"
    path.write_bytes(data)
    try_everything(path, **options)


@pytest.mark.parametrize("name", LISTINGS)
@SETTINGS
@given(mutations=st.lists(MUTATIONS, max_size=4), pagemap=st.lists(MUTATIONS, max_size=2))
def test_damaged_listings(tmp_path: Path, name: str, mutations: list[Mutation], pagemap: list[Mutation]) -> None:
    """ptdump text and /proc/PID folders: ranges that ascend, or one sentence."""
    data, words = LISTINGS[name], bytes(0x2000) + struct.pack("<16Q", *(1 << 63 | n for n in range(16))) + bytes(0x1000)
    for mutation in mutations:
        data = mutation(data)
    for mutation in pagemap:
        words = mutation(words)
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "maps").write_bytes(data)
    (folder / "pagemap").write_bytes(words)
    try:
        listing = load_listing(folder if name == "maps" else folder / "maps")
    except InputError as error:
        one_sentence(error)
        return
    rows = () if listing is None else listing.rows
    assert all(one.end <= two.va for one, two in pairwise(rows))
    assert all(0 <= row.va < row.end <= 1 << 64 for row in rows)


@settings(SETTINGS, max_examples=60)
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_damaged_register_text(tmp_path: Path, mutations: list[Mutation]) -> None:
    path, image = tmp_path / "registers.txt", tmp_path / "ram"
    data = (LOADER_DATA / "info-registers-qemu-7.2.txt").read_bytes()
    for mutation in mutations:
        data = mutation(data)
    path.write_bytes(data)
    image.write_bytes(SEEDS["raw"][0])
    try_everything(image, arch="x86_64", registers_from=path)


@SETTINGS
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_damage_inside_an_intact_xz(tmp_path: Path, mutations: list[Mutation]) -> None:
    data = TAR
    for mutation in mutations:
        data = mutation(data)
    path = tmp_path / "file"
    path.write_bytes(lzma.compress(data, preset=0))
    try_everything(path)


@settings(SETTINGS, max_examples=60)
@given(name=st.sampled_from(sorted(small_capture())), mutations=st.lists(MUTATIONS, min_size=1, max_size=3))
def test_one_damaged_file_of_a_capture_and_verify(tmp_path: Path, name: str, mutations: list[Mutation]) -> None:
    """`verify` ends as well: with a report, or with one sentence."""
    files = small_capture()
    for mutation in mutations:
        files[name] = mutation(files[name])
    path = write_directory(files, tmp_path / "capture")
    try_everything(path)
    try:
        verify(path)
    except PtwalkError as error:
        one_sentence(error)


@settings(SETTINGS, max_examples=60)
@given(data=st.binary(max_size=300), options=st.sampled_from([{}, RAW, {"arch": "arm64", "root": 0}]))
def test_garbage(tmp_path: Path, data: bytes, options: dict[str, Any]) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    try_everything(path, **options)


HOSTILE_WORDS = st.sampled_from([0x3003, 0x3007, 0x3067, 0x30E7, 0xFFFF_FFFF_FFFF_FFFF, 0x3403, 0x3003 | 1 << 51, 0x83])


@pytest.mark.parametrize("preset", ["x86_64-4level", "x86_64-5level", "arm64-4k-48", "arm64-4k-52", "arm64-64k-52"])
@settings(SETTINGS, max_examples=25)
@given(words=st.lists(HOSTILE_WORDS | st.integers(0, (1 << 64) - 1), min_size=1, max_size=6))
def test_tables_that_point_at_themselves(tmp_path: Path, preset: str, words: list[int]) -> None:
    """One page full of the same few entries: walks end, and listings end after a bounded number of tables."""
    page = struct.pack("<512Q", *(words * 512)[:512])
    path = tmp_path / "ram"
    path.write_bytes(bytes(0x3000) + page + bytes(0xC000))
    machine = try_everything(path, preset=preset, root=0x3000 if "64k" not in preset else 0)
    assert machine is not None
    count = 0
    with suppress(SpaceLimitError):
        for _ in leaves(machine.memory, machine.regime(), max_tables=40):
            count += 1
    assert count <= 40 * 8192


def test_verify_ends_on_tables_that_point_at_themselves(tmp_path: Path) -> None:
    files = Described("x86_64-4level", 12, 4, [(0x40_0000, 0x200_0000, 4096, 4096)], root=0x180_0000).capture(tmp_path)
    files["cp1/ptpages.idx"] = struct.pack("<Q", 0x180_0000)
    files["cp1/ptpages.bin"] = struct.pack("<512Q", *[0x180_0067] * 512)
    with pytest.raises(InputError, match="the tables point at themselves"):
        verify(write_directory(files, tmp_path / "c"))
