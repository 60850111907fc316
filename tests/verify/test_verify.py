"""`verify` on every shipped capture, on captures of kinds that are not shipped, and on captures with a lie in them."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from capture_files import CAPTURES, LIVE, SMALL, files_of, only, write_directory
from capture_writer import Described

from ptwalk.arch.errors import InputError
from ptwalk.formats import qemu_tlb
from ptwalk.loaders import load
from ptwalk.mmu.spaces import leaves
from ptwalk.verify import verify
from ptwalk.verify.rules import RULES, SOFT_DIRTY_RULES, Case, decide
from ptwalk.verify.tables import PRESENT, SOFT_DIRTY, SWAP, UFFD_WP

MAIN = {"x86_64": 75_000, "arm64": 156_500}  # about how many pages the main captures have present


@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: p.name)
def test_nothing_disagrees(path: Path) -> None:
    report = verify(path)
    assert report.disagreements == [], report.text()
    files = files_of(path)
    words = [
        word
        for name, data in files.items()
        if name.endswith(".pagemap.bin")
        for (word,) in struct.iter_unpack("<Q", data)
    ]
    assert report.present == sum(word >> 63 for word in words)
    assert report.agreements.total() + report.by_rule.total() == len(words), "every word is counted once"
    if len(report.checkpoints) == 6:
        assert MAIN[report.arch] < report.present < MAIN[report.arch] * 1.01
    assert report.walker["walks that agree"] > 200 * len(report.checkpoints) / 2
    listings = [data for name, data in files.items() if name.startswith("info_tlb")]
    assert report.tlb.total() == sum(len(data.split(b"\n")) - 1 for data in listings)
    assert set(report.by_rule) <= RULES.keys()
    assert set(report.soft_dirty) <= {"told by the entry", *SOFT_DIRTY_RULES}


@pytest.mark.parametrize("path", LIVE, ids=lambda p: p.name)
def test_captures_made_by_ptwalk_on_running_kernels(path: Path) -> None:
    """Debian's 6.1 under QEMU 7.2: five levels, page-table isolation, and both."""
    report = verify(path)
    assert report.disagreements == [], report.text()
    files = files_of(path)
    words = [w for name, data in files.items() if name.endswith("map.bin") for (w,) in struct.iter_unpack("<Q", data)]
    assert report.present == sum(word >> 63 for word in words) > 5000
    meta = json.loads(files["meta.json"])
    assert meta["levels"] == (5 if "5level" in path.name else 4)
    halves = report.walker["entries alike in both halves (page-table isolation)"]
    assert (halves > 4000) == ("pti" in path.name)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("swap", 1038),
        ("marker", 16),
    ],
)
def test_kinds_in_the_swap_capture(kind: str, expected: int) -> None:
    report = verify(SMALL)
    assert sum(n for name, n in report.agreements.items() if name.split()[0] == kind) == expected


FOUR_LEVELS = [(0x40_0000, 0x200_0000, 0x1_0000, 4096), (0x4000_0000, 0x8000_0000, 4 << 20, 2 << 20)]
DESCRIBED = {
    "5 levels": Described(
        "x86_64-5level", 12, 5,
        [*FOUR_LEVELS, (1 << 50, 0x1_2345_6000, 0x8000, 4096), (1 << 55, 1 << 40, 1 << 21, 1 << 21)],
    ),
    "4 levels": Described("x86_64-4level", 12, 4, FOUR_LEVELS),
    "16K LPA2": Described(
        "arm64-16k-52", 14, 4,
        [(0x40_0000, 0x200_0000, 1 << 16, 1 << 14), (1 << 51, 0xF_0000_0001_0000 >> 14 << 14, 1 << 15, 1 << 14),
         (1 << 49, 32 << 20, 64 << 20, 32 << 20)],
        lpa2=True,
    ),
    "4K LPA2": Described(
        "arm64-4k-52", 12, 5, [(0x40_0000, 0xA_0000_0000_2000, 1 << 13, 4096), *FOUR_LEVELS[1:]], lpa2=True
    ),
    "64K LPA": Described("arm64-64k-52", 16, 3, [(1 << 51, 0xC_0000_0005_0000, 1 << 17, 1 << 16)]),
    "16K 3 levels": Described("arm64-16k-47", 14, 3, [(0x40_0000, 0x200_0000, 1 << 16, 1 << 14)]),
}  # fmt: skip


@pytest.mark.parametrize("name", DESCRIBED)
def test_captures_of_other_kinds(tmp_path: Path, name: str) -> None:
    described = DESCRIBED[name]
    report = verify(write_directory(described.capture(tmp_path), tmp_path / "capture"))
    assert report.disagreements == [], report.text()
    assert report.present == sum(size for _, _, size, _ in described.mappings) >> described.page_shift
    assert report.walker["walks that agree"] >= len(described.mappings)
    assert report.walker["roots seen in user mode"] == 1


def _isolated(tmp_path: Path) -> dict[str, bytes]:
    """A capture with the two roots of page-table isolation: the kernel's forbids execution of user code."""
    described = Described("x86_64-4level", 12, 4, FOUR_LEVELS, root=0x180_0000)
    files = described.capture(tmp_path)
    layout = tmp_path / "layout.toml"

    machine = load(layout)
    user = bytearray(machine.memory.read(0x180_0000, 4096))
    kernel = bytearray(user)
    for at in range(0, 2048, 8):
        (word,) = struct.unpack_from("<Q", kernel, at)
        if word & 1:
            struct.pack_into("<Q", kernel, at, word | 1 << 63)
    pages = [pa for (pa,) in struct.iter_unpack("<Q", files["cp1/ptpages.idx"])]
    files["cp1/ptpages.idx"] = struct.pack(f"<{len(pages) + 2}Q", *pages, 0x180_0000, 0x180_1000)
    files["cp1/ptpages.bin"] += bytes(kernel) + bytes(user)
    both = ["0x1800000", "0x1801000"]
    root = {"pid": 7, "pgd_phys": both[0], "all_matching_roots": both, "seen_in_user_mode_cp5": both[1:]}
    files["cp1/roots.json"] = json.dumps({"A": root}).encode()
    return files


def test_page_table_isolation(tmp_path: Path) -> None:
    files = _isolated(tmp_path)
    report = verify(write_directory(files, tmp_path / "good"))
    assert report.disagreements == [], report.text()
    assert report.walker["entries alike in both halves (page-table isolation)"] == 16 + 2
    data = bytearray(files["cp1/ptpages.bin"])
    data[-4096:-4088] = bytes(8)  # the user's half loses its first root entry
    report = verify(write_directory(files | {"cp1/ptpages.bin": bytes(data)}, tmp_path / "bad"))
    assert len(report.disagreements) == 16 + 2
    assert report.disagreements[0].kernel == "only in the kernel half"


def test_a_frame_that_lies(tmp_path: Path) -> None:
    """One bit flipped in one pagemap word, in one entry, in one line of `info tlb`: each is found, and nothing else."""
    files = only(files_of(SMALL), 5)
    words = bytearray(files["cp5/A.pagemap.bin"])
    at = next(i for i in range(0, len(words), 8) if words[i + 7] & 0x80)
    words[at] ^= 1
    report = verify(write_directory(files | {"cp5/A.pagemap.bin": bytes(words)}, tmp_path / "word"))
    assert len(report.disagreements) == 1
    assert "pagemap word" in report.disagreements[0].kernel
    assert not report.ok

    lines = files["info_tlb_cpu0.txt"].split(b"\n")
    lines[100] = lines[100].replace(b"-", b"W", 1)
    report = verify(write_directory(files | {"info_tlb_cpu0.txt": b"\n".join(lines)}, tmp_path / "tlb"))
    assert [d.space for d in report.disagreements] == ["CPU 0"]

    samples = json.loads(files["cp5/regs.json"])
    swapped = re.sub(r"CR3=([0-9a-f]+)(.*?)CR3=([0-9a-f]+)", r"CR3=\3\2CR3=\1", samples[-1], flags=re.DOTALL)
    assert swapped != samples[-1]
    data = json.dumps([*samples[:-1], swapped]).encode()
    report = verify(write_directory(files | {"cp5/regs.json": data}, tmp_path / "switched"))
    assert report.ok, report.text()
    assert sum("the sample before it had" in note for note in report.notes) == 2

    roots = json.loads(files["cp5/roots.json"])
    roots["B"]["seen_in_user_mode_cp5"] = ["0x1000"]
    report = verify(write_directory(files | {"cp5/roots.json": json.dumps(roots).encode()}, tmp_path / "root"))
    assert [d.va for d in report.disagreements] == [0x1000]


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    files = only(files_of(SMALL), 5)
    roots = json.loads(files["cp5/roots.json"])
    pages = [pa for (pa,) in struct.iter_unpack("<Q", files["cp5/ptpages.idx"])]
    root = files["cp5/ptpages.bin"][pages.index(int(roots["A"]["pgd_phys"], 16)) * 4096 :][:4096]
    (entry,) = struct.unpack_from("<Q", root)
    gone = pages.index(entry & 0xF_FFFF_FFFF_F000)
    keep = [i for i in range(len(pages)) if i != gone]
    files["cp5/ptpages.idx"] = struct.pack(f"<{len(keep)}Q", *(pages[i] for i in keep))
    files["cp5/ptpages.bin"] = b"".join(files["cp5/ptpages.bin"][i * 4096 : i * 4096 + 4096] for i in keep)
    report = verify(write_directory(files, tmp_path / "c"))
    assert not report.ok
    assert any("is not in the capture" in d.tables for d in report.disagreements)


def test_an_empty_smaps_leaves_soft_dirty_undecided(tmp_path: Path) -> None:
    described = Described("x86_64-4level", 12, 4, FOUR_LEVELS, files={"cp1/proc/A/smaps": b""})
    report = verify(write_directory(described.capture(tmp_path), tmp_path / "capture"))
    assert report.ok, report.text()


def test_huge_leaves_cost_no_more_than_the_pagemap(tmp_path: Path) -> None:
    """A table of 512 leaves of 1 GiB where the kernel saw one page: told once each, not page by page."""
    files = Described("x86_64-4level", 12, 4, [(0x40_0000, 0x200_0000, 4096, 4096)], root=0x180_0000).capture(tmp_path)
    files["cp1/ptpages.idx"] = struct.pack("<2Q", 0x180_0000, 0x180_1000)
    root = struct.pack("<512Q", 0x180_1067, *[0] * 511)
    files["cp1/ptpages.bin"] = root + struct.pack("<512Q", *[0xE7 | i << 30 for i in range(512)])
    report = verify(write_directory(files, tmp_path / "c"))
    assert 512 <= len(report.disagreements) <= 513 + 1


def test_only_captures_can_be_verified(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    for path, message in [
        (tmp_path / "none", "no such file"),
        (tmp_path / "ram", "no capture"),
        (tmp_path, "no capture"),
    ]:
        with pytest.raises(InputError, match=message):
            verify(path)


def test_shape_and_text() -> None:
    report = verify(SMALL)
    shape = report.shape()
    assert json.loads(json.dumps(shape)) == shape
    assert shape["ok"] is True
    assert report.text().endswith("0 disagreements")


TOUCHED = "touched since /proc was read (the process was running)"


def _case(word: int, tables: int, flags: str | None, **more: object) -> Case:
    fields = {"moving": False, "later": lambda: None, "kpageflags": lambda: None} | more
    parsed = None if flags is None else frozenset(flags.split())
    return Case(word, tables, None, parsed, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        (_case(SOFT_DIRTY, 0, "rd sd"), "from the area (VM_SOFTDIRTY)"),
        (_case(SOFT_DIRTY, 0, "rd"), None),
        (_case(0, SOFT_DIRTY, "rd sd"), None),
        (_case(0, PRESENT | 5, "rd pf io"), "hidden by pagemap (VM_PFNMAP)"),
        (_case(0, PRESENT | 5, "rd"), None),
        (_case(PRESENT | 6, PRESENT | 5, "rd pf"), None),
        (_case(PRESENT | 5, PRESENT | SOFT_DIRTY | 5, "ht"), "from the area alone (hugetlb)"),
        (_case(PRESENT | 5, PRESENT | SOFT_DIRTY | 5, "rd"), None),
        (_case(UFFD_WP, SWAP | UFFD_WP | 31, "ht"), "hugetlb: not-present entries are hidden"),
        (_case(0, PRESENT | 5, "rd", moving=True, later=lambda: PRESENT | 5), TOUCHED),
        (_case(0, PRESENT | 5, "rd", moving=True, later=lambda: PRESENT | 6), None),
        (_case(0, PRESENT | 5, "rd", moving=False, later=lambda: PRESENT | 5), None),
        (_case(0, PRESENT | 5, "rd", moving=True, kpageflags=lambda: 1 << 11), TOUCHED),
        (_case(0, PRESENT | 5, "rd", moving=True, kpageflags=lambda: 0), None),
        (_case(PRESENT | 6, PRESENT | 5, "rd", moving=True, kpageflags=lambda: 1 << 11), None),
        (_case(PRESENT | 6, PRESENT | 5, "rd", moving=True, later=lambda: PRESENT | 5), None),
        (_case(SOFT_DIRTY | PRESENT | 5, PRESENT | 5, None), "not comparable: no smaps for the area"),
    ],
)  # fmt: skip
def test_rules_need_their_evidence(case: Case, rule: str | None) -> None:
    assert decide(case) == rule


def test_qemus_listing_hides_the_pat_bit_of_4k_entries(tmp_path: Path) -> None:
    """tlb_info_la48 of QEMU clears bit 7 before it prints a 4K entry."""
    text = 'preset = "x86_64-4level"\nmemory = [{start = 0, size = "64M"}]\n[[spaces]]\nname = "A"\nmappings = ['
    text += '{va = 0x1000, pa = 0x5000, size = 4096, memory_type = 4}, {va = 0x200000, pa = 0, size = "2M"}]'
    (tmp_path / "a.toml").write_text(text)
    machine = load(tmp_path / "a.toml")
    lines = list(qemu_tlb(leaves(machine.memory, machine.regime("A"))))
    assert [line[34:] for line in lines] == [" X--DA--UW", " X-PDA--UW"]
