"""The assertions: what passes, what fails, and what a failure says. Frames are the captured kernel's pagemap's."""

from __future__ import annotations

import json
import re
import struct
from functools import cache
from pathlib import Path

import pytest
from capture_files import EXAMPLES, files_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ptwalk.arch.errors import InputError
from ptwalk.loaders import load
from ptwalk.mmu.builder import Mapping, build
from ptwalk.mmu.frames import FrameAllocator
from ptwalk.mmu.hardware_entries import PageAttributes
from ptwalk.mmu.machine import Machine
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import ALL_RIGHTS, Rights
from ptwalk.testing import assert_faults, assert_same_mappings, assert_translates, assert_unreachable

CAPTURE = EXAMPLES / "captures" / "x86_64-7.3.4-P.tar.xz"
LAYOUT = """
preset = "x86_64-4level"
memory = [{{ start = 0, size = "64M" }}]
[[spaces]]
name = "A"
mappings = [
    {{ va = "0x40_0000", pa = "0x20_0000", size = "2M", page_size = "{page}", rights = "{rights}" }},
    {{ va = "0x80_0000", pa = "0x60_0000", size = "16K", rights = "r--", memory_type = {memory_type} }},
]
"""


@cache
def captured() -> Machine:
    return load(CAPTURE, checkpoint=5)


def made(tmp_path: Path, page: str = "2M", rights: str = "rw-", memory_type: int = 0) -> Machine:
    path = tmp_path / f"{page}{rights}{memory_type}.toml"
    path.write_text(LAYOUT.format(page=page, rights=rights, memory_type=memory_type))
    return load(path)


def pagemap(process: str) -> dict[int, int]:
    """The present pages of a process by the captured kernel's own word: address to frame (bit 63, bits 0 to 54)."""
    files = files_of(CAPTURE)
    raw = files[f"cp5/{process}.pagemap.bin"]
    entries = struct.unpack(f"<{len(raw) // 8}Q", raw)
    found = {}
    for start, _, first, count in json.loads(files[f"cp5/{process}.pagemap.json"]):
        for i in range(count):
            if entries[first + i] >> 63:
                found[int(start, 16) + 4096 * i] = entries[first + i] & (1 << 55) - 1
    return found


def message(failure: pytest.ExceptionInfo[AssertionError]) -> str:
    return str(failure.value)


def test_every_page_of_a_process_translates_as_its_kernel_said() -> None:
    pages = pagemap("C")
    assert len(pages) > 1000
    for va, frame in pages.items():
        end = assert_translates(captured(), va, frame << 12, space="C")
        assert end.rights & Rights.UR


def test_a_wrong_frame_shows_the_walk() -> None:
    va, frame = next(iter(pagemap("A").items()))
    with pytest.raises(AssertionError) as failure:
        assert_translates(captured(), va, (frame + 1) << 12, space="A")
    head, *walk = message(failure).splitlines()
    assert head.startswith(f"{va:#018x} (read, user) does not translate as expected: pa is {frame << 12:#x}, not")
    assert [line.split("/")[0].strip() for line in walk[:4]] == ["PML4E", "PDPTE", "PDE", "PTE"]
    assert walk[4].startswith(f"PA    {frame << 12:#018x}")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pa": 0}, "pa is 0x1204e000, not 0x0"),
        ({"page_size": 1 << 21}, "page_size is 0x1000, not 0x200000"),
        ({"rights": Rights.UR}, "rights is kernel ---, user rw-, not kernel ---, user r--"),
        ({"memory_type": "UC"}, "memory_type is 'WB', not 'UC'"),
        ({"access": "execute"}, "(execute, user) does not translate as expected: it faults"),
        ({"mode": "kernel"}, "(read, kernel) does not translate as expected: it faults"),
    ],
)
def test_each_expectation_of_a_translation(wrong: dict[str, object], says: str) -> None:
    """Process A's page at 4 GiB: written by A, so present, writable, and data; SMAP keeps the kernel out."""
    good = {"page_size": 4096, "rights": Rights.UR | Rights.UW, "memory_type": "WB"}
    assert_translates(captured(), 0x1_0000_0000, space="A", **good)  # type: ignore[arg-type]
    with pytest.raises(AssertionError) as failure:
        assert_translates(captured(), 0x1_0000_0000, space="A", **wrong)  # type: ignore[arg-type]
    assert says in message(failure)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "#GP"}, "name is '#PF', not '#GP'"),
        ({"code": 0x4}, "code is 0x5, not 0x4"),
        ({"level": 2}, "level is 0x1, not 0x2"),
        ({"mode": "kernel"}, "it translates"),
    ],
)
def test_each_expectation_of_a_fault(tmp_path: Path, wrong: dict[str, object], says: str) -> None:
    """A kernel page read by user mode: error code P and U (Intel SDM volume 3A, 5.7)."""
    path = tmp_path / "kernel.toml"
    path.write_text(
        'preset = "x86_64-4level"\nmemory = [{ start = 0, size = "1M" }]\n'
        'spaces = [{ name = "A", mappings = [{ va = "0x1000", pa = "0x8000", size = "4K", mode = "kernel" }] }]\n'
    )
    machine = load(path)
    fault = assert_faults(machine, 0x1000, name="#PF", code=0x5, level=1)
    assert fault.bit == "US"
    with pytest.raises(AssertionError) as failure:
        assert_faults(machine, 0x1000, **wrong)  # type: ignore[arg-type]
    assert says in message(failure)
    assert re.search(r"^  PTE/PTE .* => ", message(failure), re.MULTILINE)


def test_a_space_has_to_be_named_where_there_are_several() -> None:
    described = load(EXAMPLES / "layouts" / "x86_64.toml")
    for name in (None, "nobody"):
        with pytest.raises(InputError, match=r"there are: shell, database"):
            assert_faults(described, 0, space=name)


def test_page_sizes_do_not_matter_to_equal_mappings(tmp_path: Path) -> None:
    assert_same_mappings(made(tmp_path), made(tmp_path, page="4K"))


@pytest.mark.parametrize("changed", [{"rights": "r--"}, {"memory_type": 1}])
def test_rights_and_memory_types_do_matter(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match="differ in 1 ranges"):
        assert_same_mappings(made(tmp_path, "4K"), made(tmp_path, "4K", **changed))  # type: ignore[arg-type]


def test_one_missing_page_is_one_difference_with_both_walks() -> None:
    """The kernel cleared A's entry between two checkpoints: compared with itself, but for one entry taken out."""
    va, frame = next((va, frame) for va, frame in pagemap("A").items() if va == 0x1_0000_0000)
    one, other = captured(), load(CAPTURE, checkpoint=5)
    assert_same_mappings(one, other, space="A")
    entry = assert_translates(other, va, space="A").entry_pa
    assert entry is not None
    other.memory.write_uint(entry, 0, 8)
    with pytest.raises(AssertionError) as failure:
        assert_same_mappings(one, other, space="A")
    lines = message(failure).splitlines()
    assert lines[0] == "the mappings differ in 1 ranges"
    assert lines[1].startswith(
        f"  {va:#018x}-{va + 4096:#018x} => {frame << 12:#018x} kernel ---, user rw- WB  |  nothing"
    )
    assert sum(line.startswith("walk of 0x0000000100000000 (read, user)") for line in lines) == 2
    assert any(line.startswith("PA ") for line in lines)
    assert any(line.startswith("FAULT #PF") for line in lines)


def test_a_fork_shares_what_was_never_written() -> None:
    """B is a fork of A: what both map to the same frame by their pagemaps, and nothing else, must not differ."""
    a, b = pagemap("A"), pagemap("B")
    assert any(a[va] == b.get(va) for va in a)
    with pytest.raises(AssertionError) as failure:
        assert_same_mappings(captured(), captured(), space="A", other_space="B")
    assert "... and " in message(failure)
    first = re.search(r"^  (0x[0-9a-f]+)-", message(failure), re.MULTILINE)
    assert first
    assert a.get(int(first[1], 16)) != b.get(int(first[1], 16)) or int(first[1], 16) not in a


def test_who_reaches_a_frame() -> None:
    """A page that A alone has mapped is reached from A, read and write, and never executed."""
    va, frame = 0x1_0000_0000, pagemap("A")[0x1_0000_0000]
    pa = frame << 12
    assert_unreachable(captured(), pa, 4096, Rights.UX, space="A")
    assert_unreachable(captured(), pa, 4096, Rights.UR | Rights.UW, space="C")
    with pytest.raises(AssertionError) as failure:
        assert_unreachable(captured(), pa + 0x800, 8, Rights.UW, space="A")
    assert f"physical {pa + 0x800:#018x}-{pa + 0x808:#018x} is reached (kernel ---, user -w-) from" in message(failure)
    assert f"walk of {va + 0x800:#018x} (write, user)" in message(failure)
    with pytest.raises(AssertionError):
        assert_unreachable(captured(), pa - 4096, 2 * 4096, ALL_RIGHTS, space="A")


PAGES = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3), st.booleans()), max_size=12, unique_by=lambda p: p[0])


@settings(max_examples=150, deadline=None)
@given(PAGES, PAGES)
def test_differences_page_by_page(one: list[tuple[int, int, bool]], other: list[tuple[int, int, bool]]) -> None:
    """Against the plainest comparison there is: every page of both, looked up in the lists they were built from."""
    machines, wanted = [], []
    for pages in (one, other):
        memory = PhysicalMemory()
        memory.add_ram(0, 1 << 20)
        machine = Machine("x86_64", memory, {"CR3": 0x1000})
        mappings = [
            Mapping(4096 * page, 0x8_0000 + 4096 * (page + shift), 4096, PageAttributes(write=write))
            for page, shift, write in pages
        ]
        build(memory, machine.regime(), FrameAllocator(0x2000, 0x9000), mappings)
        machines.append(machine)
        wanted.append({m.va: (m.pa, m.attributes.write) for m in mappings})
    differing = [va for va in range(0, 16 * 4096, 4096) if wanted[0].get(va) != wanted[1].get(va)]
    try:
        assert_same_mappings(*machines)
        told = ""
    except AssertionError as failure:
        told = str(failure).split("\none:")[0]
    ranges = [(int(start, 16), int(end, 16)) for start, end in re.findall(r"^  (0x\w+)-(0x\w+)", told, re.MULTILINE)]
    found = [va for start, end in ranges for va in range(start, end, 4096)]
    assert found == (differing if "... and " not in told else differing[: len(found)])
    assert bool(told) == bool(differing)
