"""ptwalk rmap verify: every figure of real kernels, and proof that a single wrong bit is noticed."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress

import pytest
from verified_captures import ALL, NEW_ARM, OLD_ARM, OLD_SWAP, OLD_X86, Changed, N, P, adopted, opened

from ptwalk.arch.errors import PtwalkError
from ptwalk.arch.linux_proc import KPF, PAGEMAP
from ptwalk.rmap_verify import verify, verify_capture
from ptwalk.rmap_verify.report import RmapVerifyReport

SEED = 20261123

DEFAULT = [(P, (1, 4)), (N, (6,)), (OLD_X86, (4,)), (OLD_SWAP, (4,)), (NEW_ARM, (5,))]


@pytest.mark.parametrize(("name", "checkpoints"), DEFAULT)
def test_nothing_stays_unexplained(name: str, checkpoints: tuple[int, ...]) -> None:
    report = verify_capture(opened(name), checkpoints)
    assert report.unexplained == [], report.text()
    assert report.ok
    assert report.compared["kpagecount"] > 5000 * len(checkpoints)
    assert report.compared["smaps.Pss"] > 60 * len(checkpoints)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_checkpoint_of_every_capture(name: str) -> None:
    started = time.monotonic()
    report = verify(opened(name).path)
    assert report.unexplained == [], report.text()
    assert report.checkpoints == list(opened(name).checkpoints)
    assert time.monotonic() - started < 60


def test_the_model_follows_from_the_configuration_or_from_kpagecount() -> None:
    assert verify_capture(opened(N), [4]).model == "no-page-mapcount"
    with_config = verify_capture(opened(P), [1])
    assert with_config.model == "precise"
    assert "CONFIG_PAGE_MAPCOUNT=y" in with_config.evidence[0]
    changed = Changed(N)
    changed.file("cp1/proc/config.gz")[:] = gzip_of(b"")
    without = verify_capture(changed.capture(), [4])
    assert without.model == "no-page-mapcount"
    assert without.ok
    assert "fits best" in without.evidence[0]


def gzip_of(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data)


def test_the_wrong_model_is_noticed() -> None:
    changed = Changed(N)
    changed.file("cp1/proc/config.gz")[:] = gzip_of(b"CONFIG_PAGE_MAPCOUNT=y\n")
    report = verify_capture(changed.capture(), [4])
    assert not report.ok
    assert {"kpagecount", "pagemap.MMAP_EXCLUSIVE", "smaps.Pss"} <= {d.field for d in report.unexplained}


def fields(report: RmapVerifyReport) -> set[str]:
    return {d.field for d in report.unexplained}


def mapped_slots(name: str, checkpoint: int, process: str) -> list[tuple[int, int]]:
    """(word index in ptpages.bin, entry) of present entries that map a normal page."""
    one = adopted(name, checkpoint)
    process_tables = next(p for p in one.processes if p.name == process)
    pages = {pa: i for i, pa in enumerate(one.checkpoint.words("ptpages.idx"))}
    size = one.checkpoint.capture.page_size
    found = []
    for raw in process_tables.tables.raw(0, 1 << 47):
        entry = process_tables.tables.page_entry(raw)
        folio = None if entry.special or not entry.present else one.frames.folio(entry.pfn)
        if folio is not None and not folio.kind.is_hugetlb:
            base = raw.table & -size
            found.append(((pages[base] * size + raw.table - base) // 8 + raw.index, raw.raw))
    return found


@pytest.mark.parametrize(("name", "bits"), [(P, (0, 27)), (N, (13,)), (OLD_ARM, (12,))])
def test_a_flipped_page_table_bit_is_noticed(name: str, bits: tuple[int, ...]) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    slots = mapped_slots(name, 4, "A")
    for bit in bits:
        index, raw = rng.choice(slots)
        changed = Changed(name)
        changed.flip("cp4/ptpages.bin", index, 1 << bit)
        report = verify_capture(changed.capture(), [4])
        assert not report.ok, f"bit {bit} of entry {raw:#x} (word {index}) was flipped and nobody noticed"


@pytest.mark.slow
@pytest.mark.parametrize("name", [P, N, OLD_X86, OLD_ARM, NEW_ARM])
def test_many_flipped_page_table_bits_are_noticed(name: str) -> None:
    rng = random.Random(SEED + 1)
    print("seed", SEED + 1)
    slots = mapped_slots(name, 4, "A") + mapped_slots(name, 4, "C")
    valid = [] if name == NEW_ARM else [0]  # since 6.11 arm64 Linux calls an entry with bit 0 clear and bit 11 present
    for _ in range(40):
        index, raw = rng.choice(slots)
        bit = rng.choice([*valid, *range(12, 28)])
        changed = Changed(name)
        changed.flip("cp4/ptpages.bin", index, 1 << bit)
        report = verify_capture(changed.capture(), [4])
        assert not report.ok, f"bit {bit} of entry {raw:#x} (word {index}) was flipped and nobody noticed"


@pytest.mark.parametrize("name", [NEW_ARM])
def test_an_emptied_entry_is_noticed(name: str) -> None:
    index, raw = random.Random(SEED).choice(mapped_slots(name, 4, "B"))
    changed = Changed(name)
    changed.flip("cp4/ptpages.bin", index, raw)
    report = verify_capture(changed.capture(), [4])
    assert {"pagemap.PRESENT", "pagemap.PFRAME", "kpagecount", "smaps.Rss", "smaps_rollup.Rss"} <= fields(report)


@pytest.mark.parametrize("name", [P, N, OLD_ARM])
def test_every_changed_word_of_the_kernel_is_noticed(name: str) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    one = adopted(name, 4)
    lo = one.kpagecount.pfn_lo
    mapped = [f for f in one.frames.folios.values() if one.acct.models["precise"].mapcount(f) and f.kind.is_anon]
    small, large = [f for f in mapped if not f.is_large], [f for f in mapped if f.order == 9 and not f.kind.is_hugetlb]
    changed = Changed(name)
    folio, big = rng.choice(small), rng.choice(large)
    changed.flip(f"cp4/kpagecount.{lo:x}.bin", folio.pfn - lo, 4)
    changed.flip(f"cp4/kpagecount.{lo:x}.bin", big.pfn + 77 - lo, 1 << 40)
    changed.flip(f"cp4/kpageflags.{lo:x}.bin", big.pfn - lo, KPF.mask("MMAP"))
    pfns = list(one.checkpoint.words("structpage.pfn"))
    changed.flip("cp4/structpage.bin", pfns.index(folio.pfn) * 8 + 6, 2)  # _mapcount of the small folio
    entire = one.structs.layout["_entire_mapcount"]
    word = pfns.index(big.pfn + 1) * 8 + (entire.offset - 64) // 8
    changed.flip("cp4/structpage.bin", word, 1 << entire.offset % 8 * 8)
    area = next(a for a in one.checkpoint.pagemap("B").ranges if a.start == 0x100000000)
    changed.flip("cp4/B.pagemap.bin", area.first + 1, PAGEMAP.mask("MMAP_EXCLUSIVE"))
    changed.flip("cp4/B.pagemap.bin", area.first + 2, PAGEMAP.mask("FILE"))
    report = verify_capture(changed.capture(), [4])
    noticed = {(d.field, d.where) for d in report.unexplained}
    assert {
        ("kpagecount", folio.pfn),
        ("kpagecount", big.pfn + 77),
        ("kpageflags.MMAP", big.pfn),
        ("struct._mapcount", folio.pfn),
        ("struct._entire_mapcount", big.pfn),
        ("pagemap.MMAP_EXCLUSIVE", 0x100001000),
        ("pagemap.FILE", 0x100002000),
    } <= noticed


TEXT_CHANGES = [
    ("proc/B/smaps", "Pss:", "100000000-", "smaps.Pss"),
    ("proc/B/smaps", "Referenced:", "00401000-", "smaps.Referenced"),
    ("proc/B/smaps", "Shared_Hugetlb:", "180000000-", "smaps.Shared_Hugetlb"),
    ("proc/A/smaps", "AnonHugePages:", "150000000-", "smaps.AnonHugePages"),
    ("proc/A/smaps_rollup", "Pss_Shmem:", "", "smaps_rollup.Pss_Shmem"),
    ("proc/A/numa_maps", "mapmax=", "100000000", "numa_maps.mapmax"),
    ("proc/meminfo", "AnonHugePages:", "", "meminfo.AnonHugePages"),
]


@pytest.mark.parametrize(("file", "label", "after", "field"), TEXT_CHANGES)
def test_a_changed_figure_is_noticed(file: str, label: str, after: str, field: str) -> None:
    changed = Changed(P)
    text = changed.file(f"cp4/{file}").decode()
    at = text.index(label, text.index(after)) + len(label)
    while text[at] == " ":
        at += 1
    old = text[at]
    changed.file(f"cp4/{file}")[at : at + 1] = str((int(old) + 1) % 10).encode()
    report = verify_capture(changed.capture(), [4])
    assert fields(report) == {field}


class TestRulesAreNarrow:
    """Each rule explains the shape it predicts and nothing beside it."""

    def test_reader_faulted(self) -> None:
        changed = Changed(P)
        changed.replace("cp1/proc/ctl/smaps", "Rss:                  92", "Rss:                  96", "004cf000-")
        assert {"smaps.Rss", "smaps.Private_Dirty", "smaps.Pss"} <= fields(verify_capture(changed.capture(), [1]))

    def test_reader_faulted_needs_every_page_to_be_fresh(self) -> None:
        one = adopted(P, 1)
        area = next(a for a in one.checkpoint.pagemap("ctl").ranges if a.start == 0x4CF000)
        shared = next(e for e in one.processes[0].entries(area.start, area.end) if not e.write)
        changed = Changed(P)
        index = area.first + (shared.va - area.start) // 4096
        word = one.checkpoint.pagemap("ctl").entries[index]
        changed.flip("cp1/ctl.pagemap.bin", index, word & ~PAGEMAP.mask("SOFT_DIRTY"))
        assert {d.where for d in verify_capture(changed.capture(), [1]).unexplained} == {shared.va}

    def test_reader_faulted_is_over_after_checkpoint_1(self) -> None:
        one = adopted(P, 4)
        area = next(a for a in one.checkpoint.pagemap("ctl").ranges if a.start == 0x4CF000)
        fresh = next(e for e in one.processes[0].entries(area.start, area.end) if e.write)
        changed = Changed(P)
        changed.flip("cp4/ctl.pagemap.bin", area.first + (fresh.va - area.start) // 4096, PAGEMAP.mask("PRESENT"))
        assert fields(verify_capture(changed.capture(), [4])) == {"pagemap.PRESENT"}

    def test_shmem_in_swap(self) -> None:
        changed = Changed(P)
        changed.replace("cp4/proc/A/smaps", "Swap:                  8 kB", "Swap:                 20 kB", "105000000-")
        assert {"smaps.Swap", "smaps_rollup.Swap"} <= fields(verify_capture(changed.capture(), [4]))
        changed = Changed(P)
        changed.replace("cp4/proc/meminfo", "SwapFree:           8180", "SwapFree:           8188")
        assert fields(verify_capture(changed.capture(), [4])) == {"smaps.Swap", "smaps_rollup.Swap"}

    def test_per_cpu_statistics(self) -> None:
        changed = Changed(P)
        changed.replace("cp3/proc/meminfo", "AnonPages:         19664", "AnonPages:         19796")
        assert fields(verify_capture(changed.capture(), [3])) == {"meminfo.AnonPages"}

    def test_page_type(self) -> None:
        one = adopted(N, 4)
        lo = one.kpagecount.pfn_lo
        table = next(i for i, word in enumerate(one.kpageflags.values) if word == KPF.mask("PGTABLE"))
        changed = Changed(N)
        changed.flip(f"cp4/kpagecount.{lo:x}.bin", table, 1 << 31)
        report = verify_capture(changed.capture(), [4])
        assert [(d.field, d.where) for d in report.unexplained] == [("kpagecount of unmapped frames", table + lo)]

    def test_double_map(self) -> None:
        one = adopted(OLD_X86, 4)
        doubled = filter(one.structs.double_map, one.frames.folios)
        head = next(pfn for pfn in doubled if one.frames.folios[pfn].is_anon)
        pfns = list(one.checkpoint.words("structpage.pfn"))
        changed = Changed(OLD_X86)
        changed.flip("cp4/structpage.bin", pfns.index(head + 1) * 8, 1 << 6)
        report = verify_capture(changed.capture(), [4])
        assert {d.field for d in report.unexplained} == {"struct._mapcount"}
        assert len(report.unexplained) == 512

    def test_page_aging(self) -> None:
        changed = Changed(NEW_ARM)
        text = changed.file("cp5/proc/B/smaps").decode()
        at = text.index("Referenced:", text.index("140000000-"))
        changed.file("cp5/proc/B/smaps")[at : at + 27] = b"Referenced:         1234567"
        assert fields(verify_capture(changed.capture(), [5])) == {"smaps.Referenced"}

    def test_mm_id_history(self) -> None:
        one = adopted(P, 4)
        folio = next(f for f in one.frames.folios.values() if f.order == 4)
        member = one.structs.layout["_mm_id_mapcount"]
        pfns = list(one.checkpoint.words("structpage.pfn"))
        index = pfns.index(folio.pfn + 1) * 8 + (member.offset - 64) // 8
        fewer, more = Changed(P), Changed(P)
        fewer.flip("cp4/structpage.bin", index, 8)  # 15 to 7: some mappings were not tracked, which is legal
        report = verify_capture(fewer.capture(), [4])
        assert report.ok
        assert report.explained["mm-id-history", "struct._mm_id (other history)"] == 1
        more.flip("cp4/structpage.bin", index, 16)  # more than the process has entries
        assert fields(verify_capture(more.capture(), [4])) == {"struct._mm_id"}


def test_text_and_json() -> None:
    report = verify_capture(opened(P), [4])
    text = report.text()
    assert "0 unexplained" in text
    assert "rule shmem-in-swap: 4" in text
    shape = json.loads(json.dumps(report.shape()))
    assert shape["ok"] is True
    assert shape["compared"]["mapping"] == report.compared["mapping"] > 0
    assert {entry["rule"] for entry in shape["explained"]} == {"shmem-in-swap"}


def test_a_long_list_says_how_much_is_left_out() -> None:
    changed = Changed(N)
    changed.file("cp1/proc/config.gz")[:] = gzip_of(b"CONFIG_PAGE_MAPCOUNT=y\n")
    report = verify_capture(changed.capture(), [4])
    assert f"... and {len(report.unexplained) - 20} more unexplained differences" in report.text()


def damage(rng: random.Random, data: bytearray) -> None:
    """Overwrite, cut, insert, repeat or blank a part of a file."""
    at = rng.randrange(len(data))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice([1, 3, 20])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 1:
            del data[at:]
        case 2:
            data[at:at] = rng.randbytes(rng.choice([1, 8, 64]))
        case 3:
            end = min(len(data), at + rng.choice([8, 64, 4096]))
            data[at:end] = data[: end - at]
        case _:
            end = min(len(data), (at & ~7) + 8 * rng.choice([1, 10, 512]))
            data[at & ~7 : end] = rng.choice([b"\0", b"\xff"]) * (end - (at & ~7))


def survive(seed: int, rounds: int) -> None:
    """Damaged captures give a report or a PtwalkError, nothing else, and soon."""
    rng = random.Random(seed)
    print("seed", seed)
    for _ in range(rounds):
        changed = Changed(rng.choice([P, N, OLD_ARM, NEW_ARM]))
        parts = [name for name in sorted(changed.names) if name.startswith("cp4/") and "kpagecgroup" not in name]
        data = changed.file(rng.choice([*parts, "struct_layout.txt", "meta.json"]))
        if data:
            damage(rng, data)
        with suppress(PtwalkError):
            report = verify_capture(changed.capture(), [4])
            assert report.text()
            json.dumps(report.shape())


def test_damaged_captures() -> None:
    survive(SEED, 4)


@pytest.mark.slow
def test_many_damaged_captures() -> None:
    survive(SEED + 1, 150)
