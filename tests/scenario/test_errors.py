"""A bad scenario: one sentence that names file and line, exit code 2; a defect of ours is never silent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ptwalk.arch.errors import InputError, PtwalkError
from ptwalk.cli import run
from ptwalk.rmap.folio import Kind
from ptwalk.rmap.operations import fault
from ptwalk.rmap.space.system import Settings, System
from ptwalk.scenario import snapshot
from ptwalk.scenario.runner import run_lines
from ptwalk.scenario.script import RecountError, Words, parse
from ptwalk.scenario.steps import STEPS

THP = "mmap A v anon 2M\nfault A v 0..511 pmd\n"
BAD = {
    "an unknown step": (THP + "conjure A v", 3, "conjure: no such step; there are file, folio, mmap"),
    "an address outside the VMA": (
        THP + "fault A v 512",
        3,
        "fault: pages 512..512 are not all inside v, which has pages 0..511",
    ),
    "a page unmapped before": (
        THP + "munmap A v 0..255\nfault A v 3",
        4,
        "fault: pages 3..3 are not all inside v, which has pages 256..511",
    ),
    "folios that overlap in an area": (THP + "fault A v 3", 3, "fault: page 3 of v is mapped already (folio F)"),
    "folios that overlap in a file": (
        "file f shmem 4M\nfolio S f 0..511\nfolio R f 256..511",
        3,
        "folio: pages 256..511 overlap folio S",
    ),
    "a folio of an odd size": ("file f shmem 4M\nfolio S f 0..2", 2, "folio: a folio has a power of two of pages"),
    "a misaligned folio": ("file f shmem 4M\nfolio S f 1..2", 2, "folio: pages 1..2 are not aligned"),
    "an impossible order": (THP + "arch x86_64", 3, "arch: settings stand above the first step"),
    "a process that is not there": ("exit A", 1, "exit: no process of this name exists ('A')"),
    "a process that exited": (THP + "exit A\nfault A v 0", 4, "fault: no process of this name exists ('A')"),
    "an area that is not there": (THP + "zap A w", 3, "zap: process A has no area of this name ('w')"),
    "areas that overlap": (THP + "mmap A w anon 2M at 0x100001000", 3, "mmap: the range overlaps area v"),
    "an address beyond all": ("mmap A v anon 2M at 0xffffffffffff000", 1, "mmap: no page-aligned address below"),
    "a fork to a living process": (THP + "fork A A", 3, "fork: a process of this name exists already ('A')"),
    "a write to nothing": ("mmap A v anon 2M\ncow A v 0", 2, "cow: page 0 of v is not mapped by A"),
    "a split of PTEs": ("mmap A v anon 64K\nfault A v\nsplit A v", 3, "split: A maps nothing there by a PMD or PUD"),
    "a PMD across folios": (
        "file f shmem 4M\nfolio S f 0..255\nfolio R f 256..511\nmmap A v f\nfault A v 0..511 pmd",
        5,
        "fault: a PMD at page 0 of v does not lie inside folio S",
    ),
    "a page without a folio": ("file f shmem 4M\nmmap A v f\nfault A v 3", 3, "fault: page 3 of f has no folio"),
    "too many unpins": (THP + "unpin A v 0", 3, "unpin: refused by total-mapped-pages: 1 pins"),
    "words left over": (THP + "exit A now", 3, "exit: this word has no meaning here ('now')"),
    "a migration of nothing": ("file f shmem 2M\nfolio S f\nmigrate T", 3, "migrate: no folio of this name"),
    "a collapse of a PMD": (THP + "collapse A v 0..511", 3, "collapse: A maps these pages by a PMD already"),
    "a collapse of a part": (THP + "collapse A v 0..255", 3, "collapse: pages 0..255 are not one aligned PMD"),
    "a move onto itself": (THP + "mremap A v at 0x100001000", 3, "mremap: the range overlaps area v"),
    "a missing word": ("mmap A", 1, "mmap: the area is missing"),
    "a size that is none": ("mmap A v anon 2T", 1, "mmap: not a size such as 64K, 4M or 1G ('2T')"),
    "a reversed range": (THP + "zap A v 3..2", 3, "zap: the last page lies before the first ('3..2')"),
    "an unknown machine": ("arch vax", 1, "arch: the architecture is one of x86_64, x86_64-5level, arm64-4k"),
    "too many PTEs": (
        "mmap A v anon 1G\nfault A v 0..262143 pte",
        2,
        "fault: at most 65536 PTEs in one step (0x40000)",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_scenario_is_one_sentence(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, line, sentence = BAD[what]
    path = tmp_path / "bad.scn"
    path.write_text(text)
    assert run(["rmap", "run", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"ptwalk: {path}: line {line}: {sentence}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\n", b"literal\n"])
def test_no_scenario_at_all(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.scn"
    path.write_bytes(content)
    assert run(["rmap", "run", str(path)]) == 2
    assert run(["rmap", "diff", str(tmp_path / "absent.scn")]) == 2


def test_damaged_scenarios_end_in_a_sentence() -> None:
    """Shipped scenarios with words swapped, dropped and doubled: they run or they are refused, nothing else."""
    seed = 20260412
    random.seed(seed)
    ran, sentences = 0, []
    root = Path(__file__).parents[2] / "examples" / "scenarios"
    texts = [(root / f"{name}.scn").read_text() for name in ("v21", "v24", "change-6-uss", "change-3-exclusive")]
    for _ in range(150):
        rows = [row.split("#")[0].split() for row in random.choice(texts).splitlines()]
        words = [word for row in rows for word in row]
        for _ in range(random.randint(1, 2)):
            row = random.choice([row for row in rows if row])
            at = random.randrange(len(row))
            action = random.randrange(3)
            row[at : at + 1] = [[], [random.choice(words)], [row[at], row[at]]][action]
        try:
            run_lines(parse("\n".join(" ".join(row) for row in rows)))
            ran += 1
        except InputError as error:
            sentences.append(str(error))
    assert all("line" in sentence or "no step" in sentence for sentence in sentences), f"seed {seed}"
    assert ran > 5
    assert len(sentences) > 50


def machine() -> System:
    made = System(Settings())
    process = made.process("A")
    run_step(made, "mmap A v anon 2M")
    fault.anon(made, process, process.areas["v"].start, made.new_folio("F", 9, Kind.ANON))
    return made


def run_step(made: System, text: str) -> None:
    (line,) = parse(text)
    STEPS[line.words[0]](made, Words(line, "x"))


def test_an_entry_written_behind_the_editor_is_found() -> None:
    made = machine()
    process = made.processes["A"]
    snapshot.take(made)
    slot = process.editor.lookup(process.areas["v"].start)
    made.memory.write_uint(slot.pa, 0, 8)
    with pytest.raises(RecountError, match="mapcount is 1, recounted 0"):
        snapshot.take(made)


def test_a_counter_that_moved_alone_is_found() -> None:
    made = machine()
    made.acct.models["total-mapped-pages"].of(made.folios["F"]).total_mapped_pages += 1
    with pytest.raises(RecountError, match="total mapped pages is 513, recounted 512"):
        snapshot.take(made)


def test_a_foreign_frame_is_an_error() -> None:
    made = machine()
    process = made.processes["A"]
    slot = process.editor.lookup(process.areas["v"].start)
    made.memory.write_uint(slot.pa, made.memory.read_uint(slot.pa, 8) + (1 << 40), 8)
    with pytest.raises(PtwalkError, match="which is no folio's"):
        snapshot.take(made)
