"""The session: stepping, editing, undo, diff, questions; on layouts and on captures of both architectures."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from ptwalk.arch.errors import InputError, PtwalkError, RegisterError
from ptwalk.mmu.machine import Machine, Space
from ptwalk.mmu.walk import Access, AccessKind, Fault, Translation, finish
from ptwalk.shell import EXAMPLE, Session
from ptwalk.shell.accounts import Accounts
from ptwalk.shell.bits import FieldError
from ptwalk.shell.walked import Difference

EXAMPLES = Path(__file__).parents[2] / "examples"
X86, ARM64 = EXAMPLES / "layouts/x86_64.toml", EXAMPLES / "layouts/arm64.toml"
CAPTURE_X86 = EXAMPLES / "captures/x86_64-7.3.4-N.tar.xz"
CAPTURE_ARM64 = EXAMPLES / "captures/arm64-deb7.3-4k-lpa2.tar.xz"
PLACES = [
    (X86, "shell", 0x40_1000),
    (X86, "shell", 0x7FFF_F010_0000),
    (X86, "database", 0x10_0000_0000),
    (X86, "shell", 0xFFFF_8880_0000_0000),
    (ARM64, "init", 0x40_8000),
    (ARM64, "init", 0x200_0000),
    (ARM64, "init", 0x800_0000),
    (CAPTURE_X86, "A", 0x40_1000),
    (CAPTURE_X86, "A", 0x1_6000_0000),
    (CAPTURE_X86, "A", 0x40_0000),
    (CAPTURE_ARM64, "A", 0x40_0000),
    (CAPTURE_ARM64, "A", 0x1_9000_0000),
]
IDS = [f"{path.name.split('.')[0]}-{space}-{va:x}" for path, space, va in PLACES]


TABLES = {
    "x86_64.toml": (0x100_0000, 1 << 20),
    "arm64.toml": (0x7F00_0000, 1 << 20),
    "example.toml": (0x10_0000, 1 << 20),
}


def memory_of(machine: Machine) -> list[tuple[int, bytes]]:
    """What is captured, or where a layout puts its tables."""
    tables = TABLES.get(Path(machine.source).name)
    if tables is not None:
        return [(tables[0], machine.memory.read(*tables))]
    return [(bank.start, bytes(bank.data)) for bank in machine.memory.banks]


def registers_of(machine: Machine) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    return dict(machine.registers), {name: dict(space.registers) for name, space in machine.spaces.items()}


@pytest.mark.parametrize(("path", "space", "va"), PLACES, ids=IDS)
def test_stepping_shows_what_the_walker_reads(path: Path, space: str, va: int) -> None:
    session = Session.open(path, process=space)
    machine = session.machine
    user = va < 1 << 63
    steps, end = finish(machine.regime(space).walk(machine.memory, va, Access(AccessKind.READ, user)))
    cursor = session.step(va)
    for step in steps:
        assert cursor.step == step
        text = repr(cursor)
        assert f"[{step.linux_name}]" in text
        assert step.pa is not None
        assert f"{step.pa:#018x} => {step.raw:#018x}" in text
        assert step.rights.text() in text
        assert step.kind is not None
        for line, field in zip(text.splitlines()[6:], reversed(list(step.kind.values())), strict=False):
            assert step.raw is not None
            assert line.split(" = ")[1].split()[0].rstrip(",") in (
                str(step.kind.parse(step.raw)[field.name]),
                f"{step.kind.parse(step.raw)[field.name]:#x}",
            )
        cursor = session.fwd()
    assert cursor.step is None
    assert session.fwd().step is None, "the end stays the end"
    assert session.walked.end == end
    for step in reversed(steps):
        assert session.back().step == step
    assert session.back().step == steps[0], "the first step stays the first"


@pytest.mark.parametrize(("path", "space", "va"), PLACES, ids=IDS)
def test_an_entry_edited_and_undone(path: Path, space: str, va: int) -> None:
    session = Session.open(path, process=space)
    before, walked = memory_of(session.machine), session.walk(va)
    last = walked.steps[-1]
    entry = session.entry(last.linux_name.lower())
    assert entry.raw == last.raw
    assert last.kind is not None
    assert last.raw is not None
    for name, value in last.kind.parse(last.raw).items():
        got = getattr(entry, name)
        assert got in (value, last.raw & last.kind[name].mask)
    told: list[Difference] = []
    session.on_edit = told.append
    entry.raw = last.raw ^ 1  # present or valid: bit 0 on both
    after = session.walked
    assert after.end != walked.end
    assert isinstance(after.end, Fault) or not last.raw & 1
    assert told[0].before == walked
    assert told[0].after == after
    now = memory_of(session.machine)
    changed = [
        (pa + i, a, b)
        for (pa, x), (_, y) in zip(before, now, strict=True)
        if x != y
        for i, (a, b) in enumerate(zip(x, y, strict=True))
        if a != b
    ]
    assert changed == [(last.pa, last.raw & 0xFF, last.raw & 0xFF ^ 1)]
    difference = session.diff()
    assert (difference.before, difference.after) == (walked, after)
    assert memory_of(session.machine) == now, "looking back changes nothing"
    session.undo()
    assert memory_of(session.machine) == before
    assert session.walked == walked
    session.redo()
    assert session.walked == after


@pytest.mark.parametrize("path", [X86, ARM64, EXAMPLE], ids=["x86_64", "arm64", "example"])
def test_any_edits_all_undone_leave_nothing(path: Path) -> None:
    """Counters after each edit are those of a recount of the edited tables; all undone, everything is as before."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    session = Session.open(path)
    before, registers = memory_of(session.machine), registers_of(session.machine)
    spaces = list(session.machine.spaces)
    places = {name: [row.va for row in session.maps(name).rows if row.va < 1 << 63] for name in spaces}
    for _ in range(40):
        space = rng.choice(spaces)
        session.use(space)
        walked = session.walk(rng.choice(places[space]))
        if rng.random() < 0.2 and session.machine.arch == "x86_64":
            name = rng.choice(("SMEP", "SMAP", "PGE"))
            setattr(session.regs.cr4, name, rng.randrange(2))
            continue
        name = walked.steps[-1].linux_name.lower()
        entry = session.entry(name)
        bits = [0, 6, 12, 21, 22] + [1] * (name == "pte")  # never from a leaf to a table, whose entries nobody wrote
        entry.raw = entry.raw ^ 1 << rng.choice(bits) if rng.random() < 0.9 else 0
        if rng.random() < 0.3:
            session.undo()
    kept = session._accounting()
    assert isinstance(kept, Accounts)
    assert mapcounts(kept) == mapcounts(Accounts.of(session.machine))
    while session.edits().done:
        session.undo()
    assert memory_of(session.machine) == before
    assert registers_of(session.machine) == registers
    assert mapcounts(kept) == mapcounts(Accounts.of(session.machine))
    with pytest.raises(InputError, match="nothing to undo"):
        session.undo()


def mapcounts(accounts: Accounts) -> dict[tuple[int, str], dict[str, int]]:
    """The counters of mapped folios, without those that depend on the order of mappings (mm-id slots)."""
    found = {}
    for folio in accounts.frames.folios.values():
        for name, model in accounts.frames.acct.models.items():
            fields = {k: x for k, x in model.fields(folio).items() if "mm_id" not in k and k != "shared"}
            if model.mapcount(folio):
                found[folio.pfn, name] = {**fields, "folio_mapcount": model.mapcount(folio)}
    return found


def test_smep_smap_and_write_protection_steer_the_walk() -> None:
    """Intel SDM volume 3A 5.6: SMEP forbids supervisor fetches from user pages, RW=0 forbids user writes."""
    session = Session.open(X86, process="shell")
    fetch = session.walk(0x40_1000, "execute", user=False)
    assert isinstance(fetch.end, Fault)
    session.regs.cr4.SMEP = 0
    assert isinstance(session.walked.end, Translation)
    session.regs.CR4.SMEP = 1
    assert session.walked == fetch
    assert isinstance(session.walk(0x60_0000, "write").end, Translation)
    session.entry("pte").RW = 0
    assert isinstance(session.walked.end, Fault)
    assert session.walked.end.code == 0b111, "present, write, user"


def test_a_register_that_cannot_translate_is_refused() -> None:
    session = Session.open(X86, process="shell")
    before = registers_of(session.machine)
    walked = session.walk(0x40_1000)
    with pytest.raises(RegisterError, match=r"EFER\.LMA"):
        session.regs.cr0.PG = 0
    with pytest.raises(InputError, match="does not fit 1 bits"):
        session.regs.cr4.SMEP = 2
    with pytest.raises(InputError, match="no register of x86_64"):
        session.regs.sctlr_el1.M = 0
    assert registers_of(session.machine) == before
    assert not session.edits().done
    assert session.walk(0x40_1000) == walked


def test_a_space_has_its_own_root_register() -> None:
    session = Session.open(X86, process="shell")
    database = session.machine.space("database").registers["CR3"]
    session.walk(0x10_0000_0000)
    session.regs.cr3 = database
    assert session.walked.pa == 0x1_4000_0000
    assert "CR3" not in session.machine.registers
    assert session.use("database") is session.processes
    assert session.walk(0x10_0000_0000).pa == 0x1_4000_0000


def test_arm64_breaks_before_it_makes() -> None:
    """Arm ARM D8.16.1: another output address of a valid entry needs an invalid entry in between."""
    session = Session.open(ARM64)
    session.walk(0x40_8000)
    told: list[str] = []
    session.on_edit = lambda difference: told.append(repr(difference))
    entry = session.entry("pte")
    entry.OA = entry.OA + 0x4000
    entry.UXN = 1
    assert "break before make" in told[0]
    assert "break before make" not in told[1]


def test_both_halves_of_a_process_count_as_one_and_the_kernels_half_not_at_all() -> None:
    """Page-table isolation gives a process two roots (`A`, `A:user`) with the same tables below."""
    session = Session.open(CAPTURE_X86, process="A")
    session.machine.spaces["A:user"] = Space("A:user", dict(session.machine.space("A").registers), 42)
    told: list[str] = []
    session.on_edit = lambda difference: told.append(repr(difference))
    for space in ("A", "A:user"):
        session.use(space)
        session.walk(0x1_6000_0000)
        session.entry("pmd").raw = 0
        session.undo()
    moved = [text[text.index("rmap") :] for text in told]
    assert "folio_mapcount" in moved[0]
    assert moved[0] == moved[1]
    session.walk(0xFFFF_8880_0000_0000)
    session.entry(session.walked.steps[-1].linux_name.lower()).raw = 0
    assert told[2].endswith("rmap  no counter moves")


def test_an_unlinked_table_is_not_counted_and_that_is_said() -> None:
    session = Session.open(EXAMPLE)
    before = session.rmap(0x200_0000).models
    session.walk(0x40_0000)
    told: list[str] = []
    session.on_edit = lambda difference: told.append(repr(difference))
    session.entry("pmd").raw = 0
    assert "a table was linked or unlinked" in told[0]
    assert session.rmap(0x200_0000).models == before


def test_a_table_outside_memory_ends_the_walk_and_can_be_mended() -> None:
    for path, space, va, table in ((X86, "shell", 0x40_0000, 0x2000_0000), (ARM64, "init", 0x40_8000, 0)):
        session = Session.open(path, process=space)
        walked = session.walk(va)
        field = "ADDR" if path == X86 else "NLTA"
        held = getattr(session.entry("pmd"), field)
        setattr(session.entry("pmd"), field, table)
        assert not isinstance(session.walked.end, Translation)
        with pytest.raises(InputError, match="there is no PTE"):
            session.entry("pte")
        setattr(session.entry("pmd"), field, held)
        assert session.walked == walked


def test_a_tagged_address_finds_its_entries() -> None:
    """TCR_EL1.TBI0 is set in this capture: the top byte is ignored (Arm ARM D8.10.1)."""
    session = Session.open(CAPTURE_ARM64, process="A")
    plain = session.walk(0x40_0000)
    tagged = session.walk(0x5A << 56 | 0x40_0000)
    assert tagged.steps == plain.steps
    assert session.entry("pte").raw == plain.steps[-1].raw
    assert "va[20:12]" in repr(session.back())
    session.entry("pte").valid = 0
    assert isinstance(session.walked.end, Fault)


def test_levels_are_found_by_linuxs_names() -> None:
    session = Session.open(X86, process="database")
    session.walk(0x10_0000_0000)  # a page of 1G
    assert session.entry("pgd").raw == session.entry("p4d").raw == session.walked.steps[0].raw
    assert session.entry("pud").PS == 1
    with pytest.raises(InputError, match="ends at its PUD: there is no PMD"):
        session.entry("pmd")
    with pytest.raises(FieldError, match=r"such field \(near: .*RW"):
        _ = session.entry("pud").RWX
    with pytest.raises(FieldError, match=r"such field \(it has P, RW, US"):
        _ = session.entry("pud").qqqq
    with pytest.raises(InputError, match="not an address that bits 51:30 can hold"):
        session.entry("pud").ADDR = 0x1000


def test_bad_questions_get_a_sentence() -> None:
    session = Session.open(EXAMPLE)
    for ask, sentence in (
        (lambda: session.fwd(), "no walk yet"),
        (lambda: session.step(-1), "not a 64-bit address"),
        (lambda: session.step("xyz"), "not a 64-bit hexadecimal address"),
        (lambda: session.step(0x1000, "jump"), "an access is read, write or execute"),
        (lambda: session.use("nobody"), "there are: parent, child"),
        (lambda: session.diff(), "there are 0 edits"),
        (lambda: session.redo(), "nothing to redo"),
        (lambda: session.rmap(0x100), "describes no folio here"),
        (lambda: session.decode(0x1, "PTF"), "near: "),
        (lambda: session.decode(1 << 64, "PTE"), "does not fit"),
        (lambda: session.maps(colour="red"), "filters are"),
    ):
        with pytest.raises(PtwalkError, match=sentence):
            ask()


def test_a_long_listing_says_what_it_leaves_out() -> None:
    session = Session.open(CAPTURE_X86, process="A")
    found = session.maps(va="0-800000000000")
    assert len(repr(found).splitlines()) == len(found.rows) + 1
    for i in range(0, 512 << 12, 1 << 13):  # every second page of a part of the direct map loses its write right
        walked = session.walk(0xFFFF_8880_0000_0000 + i)
        if walked.steps[-1].linux_name == "PTE":
            session.entry("pte").RW = 0
    found = session.maps()
    assert len(found.rows) > 400
    assert f"... and {len(found.rows) - 400} ranges more" in repr(found)


def test_a_source_without_folios_says_so() -> None:
    session = Session.open(X86, process="shell")
    session.machine.folios.clear()
    session.walk(0x60_0000)
    told: list[str] = []
    session.on_edit = lambda difference: told.append(repr(difference))
    session.entry("pte").RW = 0
    assert "rmap  not counted" in told[0]
    with pytest.raises(InputError, match="they need a capture with kpageflags or a layout"):
        session.rmap()


def test_the_models_follow_an_unmapped_huge_page() -> None:
    """A folio of order 9 mapped by one PMD: with its last mapping every counter is that of an unmapped folio."""
    session = Session.open(EXAMPLE)
    session.walk(0x7FFF_F000_0000)
    before = session.rmap()
    told: list[str] = []
    session.on_edit = lambda difference: told.append(repr(difference))
    assert {column["folio_mapcount"] for column in before.models.values()} == {1}
    assert before.models["total-mapped-pages"]["_total_mapped_pages"] == 512
    session.entry("pmd").raw = 0
    after = session.rmap(0x280_0000)
    assert {column["folio_mapcount"] for column in after.models.values()} == {0}
    assert after.models["precise"]["_entire_mapcount"] == -1
    assert after.models["total-mapped-pages"]["_total_mapped_pages"] == 0
    assert "NR_ANON_THPS" in told[0]
    assert "512 -> 0" in told[0]
    session.undo()
    assert session.rmap().models == before.models


def test_a_captures_folios_are_counted_as_its_kernel_counted() -> None:
    """rmap of the page that is mapped by most: kpagecount, as captured, is what the running kernel said."""
    from ptwalk.loaders.capture import Capture

    session = Session.open(CAPTURE_X86, process="A", checkpoint=5)
    kernel = Capture(CAPTURE_X86).checkpoint(5).pfn_array("count")
    assert kernel is not None
    compared = 0
    for row in session.maps("A", va="0-800000000000").rows[::7]:
        pa = session.walk(row.va).pa
        if pa is None:
            continue
        try:
            counters = session.rmap(pa)
        except InputError:
            continue  # a zero page or a page without struct page
        compared += 1
        assert counters.models["no-page-mapcount"]["kpagecount"] == kernel.get(pa >> 12)
    assert compared > 5


@pytest.mark.parametrize(
    ("path", "space", "vas"),
    [(EXAMPLE, "parent", (0x60_1000, 0x7FFF_F000_0000)), (CAPTURE_ARM64, "A", (0x40_0000, 0x1_9000_0000))],
    ids=["layout", "capture"],
)
def test_the_program_does_the_same(path: Path, space: str, vas: tuple[int, ...], tmp_path: Path) -> None:
    session = Session.open(path, process=space)
    expected = []
    for va in vas:
        session.walk(va)
        pa = session.walked.pa
        entry = session.entry(session.walked.steps[-1].linux_name.lower())
        entry.raw = entry.raw & ~1
        if path == EXAMPLE:
            session.regs.cr4.SMAP = 0
        session.undo()
        entry.raw = 0
        expected += [repr(session.rmap(pa)), *session.walked.body()]
    program = tmp_path / "program.py"
    program.write_text(session.python().text)
    ran = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    out = ran.stdout
    for text in expected:
        if not text.startswith("Linux"):  # the program uses the walker alone
            assert text in out
    final = [line for line in session.walked.body() if not line.startswith("Linux")]
    assert out.splitlines()[-len(final) :] == final
