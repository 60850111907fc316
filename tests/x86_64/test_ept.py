"""Extended page tables: no emulator at hand knows them, so every expectation is worked out from the manual's text.

Sections are of Intel SDM volume 3C. Guest tables and EPT tables are written out entry by entry.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptwalk.arch.errors import RegisterError
from ptwalk.arch.x86_64.ept import EPT_PTE, EPT_QUALIFICATION
from ptwalk.mmu.memory import WordMemory
from ptwalk.mmu.walk import AccessKind, Fault, Translation, finish, outcome
from ptwalk.mmu.x86_64.access import X86Access
from ptwalk.mmu.x86_64.ept import Ept, EptRegime
from ptwalk.mmu.x86_64.npt import NestedRegime
from ptwalk.mmu.x86_64.regime import X86Regime
from ptwalk.mmu.x86_64.trace import memory_accesses

READ, WRITE, FETCH = (X86Access(kind) for kind in AccessKind)
VA, PAGE = 0x7F12_3456_7ABC, 0x9000
R, W, X, XU = (EPT_PTE.mask(name) for name in ("R", "W", "X", "XU"))
WB, AD, SSS = 6, 1 << 6, 1 << 7
RWX = R | W | X | 6 << 3
TABLE = R | W | X | XU
EPT_BASE, GUEST_BASE = 0x100_0000, 0x10_0000


def identity_ept(words, depth, frames, **flags):
    """EPT tables that map each of `frames` to itself with 4-KByte pages; `flags` change a frame's leaf."""
    tables = {}
    for frame in frames:
        at = EPT_BASE
        for level in range(depth, 0, -1):
            slot = at + (frame >> 3 + 9 * level & 511) * 8
            if level == 1:
                words[slot] = frame | flags.get(f"x{frame:x}", RWX)
                return_slot = slot
            elif slot not in words:
                at = tables.setdefault(slot, EPT_BASE + 0x1000 * (len(tables) + 1))
                words[slot] = at | TABLE
            else:
                at = words[slot] & ~0xFFF
        words[f"slot {frame:x}"] = return_slot
    return words


def guest(words, depth, leaf=0x67, va=VA):
    """A guest's path of tables to PAGE."""
    at, frames = GUEST_BASE, [GUEST_BASE]
    for level in range(depth, 0, -1):
        slot = at + (va >> 3 + 9 * level & 511) * 8
        if level == 1:
            words[slot] = PAGE | leaf
        else:
            at += 0x1000
            frames.append(at)
            words[slot] = at | 0x67
    return [*frames, PAGE]


def machine(guest_depth=4, depth=4, leaf=0x67, controls=None, eptp=0, **flags):
    words = {}
    frames = guest(words, guest_depth, leaf)
    identity_ept(words, depth, frames, **flags)
    registers = {"CR3": GUEST_BASE, "CR4": 0x20 | (0x1000 if guest_depth == 5 else 0)}
    ept = Ept(EPT_BASE | depth - 1 << 3 | WB | eptp, maxphyaddr=46, **(controls or {}))
    return EptRegime(X86Regime.from_registers(registers, {"maxphyaddr": 46}), ept), words


def memory(words):
    return WordMemory({pa: value for pa, value in words.items() if isinstance(pa, int)})


def walk(regime, words, access=READ, va=VA, **options):
    return outcome(regime.walk(memory(words), va, access, **options))


@pytest.mark.parametrize(("guest_depth", "depth", "accesses"), [(4, 4, 24), (4, 5, 29), (5, 4, 29), (5, 5, 35)])
def test_a_walk_reads_every_entry_of_both_stages_in_order(guest_depth, depth, accesses):
    regime, words = machine(guest_depth, depth)
    ram = memory(words)
    steps, end = finish(regime.walk(ram, VA, READ))
    assert isinstance(end, Translation)
    assert end.pa == PAGE | VA & 0xFFF
    assert end.attributes["EPT memory type"] == "WB"
    made = [access for access in memory_accesses(steps, end) if access.what == "read"]
    assert len(made) == accesses == (guest_depth + 1) * (depth + 1) - 1
    first = [2] * depth + [1]
    assert [access.stage for access in made] == first * guest_depth + [2] * depth
    assert [access.level for access in made[: depth + 1]] == [*range(depth, 0, -1), guest_depth]


@pytest.mark.parametrize("guest_depth", [4, 5])
@pytest.mark.parametrize("depth", [4, 5])
@pytest.mark.parametrize("leaf", [0x67, 0x65, 0x63, 0x66, 1 << 63 | 0x67, 1 << 50 | 0x67])
def test_an_identity_second_stage_changes_nothing(guest_depth, depth, leaf):
    regime, words = machine(guest_depth, depth, leaf)
    host_words = {f"x{frame:x}": 0x67 for frame in [*range(GUEST_BASE, GUEST_BASE + 0x5000, 0x1000), PAGE]}
    npt_words: dict = {}
    identity_ept(npt_words, 4, guest(npt_words, guest_depth, leaf), **host_words)
    npt_words = {pa: value & ~0xFFF | 0x67 if pa not in words or pa >= EPT_BASE else value
                 for pa, value in npt_words.items() if isinstance(pa, int)}  # fmt: skip
    host = X86Regime.from_registers({"CR3": EPT_BASE}, {"maxphyaddr": 46})
    for access in (READ, WRITE, FETCH, *(replace(a, user=True) for a in (READ, WRITE, FETCH))):
        single = outcome(regime.guest.walk(memory(words), VA, access))
        for end in (walk(regime, words, access), walk(NestedRegime(regime.guest, host), npt_words, access)):
            assert type(end) is type(single)
            if isinstance(single, Fault):
                assert (end.name, end.code, end.level) == (single.name, single.code, single.level)
                assert end.rule == single.rule
            else:
                assert (end.pa, end.rights, end.level) == (single.pa, single.rights, single.level)


def code(**fields):
    return EPT_QUALIFICATION.build(LA_VALID=1, **fields)


PAGE_INFO = {"FINAL": 1, "USER_PAGE": 1, "WRITABLE_PAGE": 1}
# what is changed, the access, and the qualification by table 29-7
VIOLATIONS = [
    ("final page not present", {"x9000": 0}, READ, {}, code(READ=1, **PAGE_INFO)),
    ("final page read-only, written", {"x9000": R | X}, WRITE, {}, code(WRITE=1, R=1, X=1, **PAGE_INFO)),
    ("final page without execution", {"x9000": R | W}, FETCH, {}, code(FETCH=1, R=1, W=1, **PAGE_INFO)),
    ("final page execute-only, read", {"x9000": X}, READ, {}, code(READ=1, X=1, **PAGE_INFO)),
    ("guest table unreadable", {"x103000": X}, READ, {}, code(READ=1, X=1)),
    ("guest table read-only, A and D on", {"x103000": R}, READ, {"eptp": AD}, code(READ=1, WRITE=1, R=1)),
    ("mode-based execution: user page without XU", {"x9000": R | W | X}, FETCH, {"controls": {"mbec": True}},
     code(FETCH=1, R=1, W=1, X=1, **PAGE_INFO)),
    ("no advanced information", {"x9000": 0}, READ, {"controls": {"advanced": False}}, code(READ=1, FINAL=1)),
    ("shadow stack", {"x9000": 0}, X86Access(AccessKind.READ, user=True, shadow_stack=True), {"leaf": 0x65},
     code(READ=1, SHADOW_STACK=1, FINAL=1, USER_PAGE=1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "access", "options", "wanted"), [v[1:] for v in VIOLATIONS], ids=[v[0] for v in VIOLATIONS]
)
def test_the_exit_qualification_bit_by_bit(flags, access, options, wanted):
    regime, words = machine(**options, **flags)
    end = walk(regime, words, access)
    assert isinstance(end, Fault)
    assert (end.name, EPT_QUALIFICATION.flags(end.code)) == ("EPT violation", EPT_QUALIFICATION.flags(wanted))
    table = "x103000" in flags
    assert end.syndrome["GUEST_PHYSICAL_ADDRESS"] == (0x103000 + (VA >> 12 & 511) * 8 if table else PAGE | VA & 0xFFF)


def test_accessed_and_dirty_bits_of_both_stages():
    regime, words = machine(leaf=0x07, eptp=AD)
    ram = memory(words)
    assert isinstance(outcome(regime.walk(ram, VA, READ, update=True)), Translation)
    changed = {pa: value ^ words[pa] for pa, value in ram.words.items() if value != words[pa]}
    tables = [words[f"slot {frame:x}"] for frame in range(GUEST_BASE, GUEST_BASE + 0x4000, 0x1000)]
    assert all(changed.pop(slot) == 0x300 for slot in tables)  # a guest's tables count as written (30.3.5)
    assert changed.pop(words["slot 9000"]) == 0x100
    assert changed.pop(0x103000 + (VA >> 12 & 511) * 8) == 0x20
    assert set(changed.values()) == {0x100}
    again = walk(regime, ram.words, update=True)
    assert again.updates == ()


def test_without_ept_flags_a_guest_update_is_a_write_of_its_own():
    regime, words = machine(leaf=0x47, x103000=R | X)  # A of the guest's PTE has to be set, in a read-only page
    end = walk(regime, words)
    assert (end.name, end.code) == ("EPT violation", code(WRITE=1, R=1, X=1))
    regime, words = machine(leaf=0x67, x103000=R | X)  # nothing to set
    assert isinstance(walk(regime, words), Translation)
    regime, words = machine(leaf=0x47, x103000=R | X | 1 << 58, controls={"paging_write": True})
    assert isinstance(walk(regime, words), Translation)


MISCONFIGURED = [
    ("writable but not readable", W, {}), ("execute-only without that capability", X, {"execute_only": False}),
    ("a reserved memory type", R | 2 << 3, {}), ("a reserved memory type", R | 7 << 3, {}),
    ("a reserved bit is set", R | 1 << 46, {}), ("a reserved bit is set", R | 1 << 51, {}),
    ("paging-write without read", X | 1 << 58, {"paging_write": True}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "entry", "controls"), MISCONFIGURED)
def test_misconfigurations(rule, entry, controls):
    regime, words = machine(x9000=entry, controls=controls)
    end = walk(regime, words)
    assert (end.name, end.rule, end.code) == ("EPT misconfiguration", rule, 0)
    assert end.entry == PAGE | entry


def test_reserved_bits_of_tables_and_large_pages():
    regime, words = machine()
    for bit in (3, 6, 7, 50):
        changed = words | {EPT_BASE: words[EPT_BASE] | 1 << bit}
        assert walk(regime, changed).name == "EPT misconfiguration", bit
    pdpt = words[EPT_BASE] & ~0xFFF
    assert walk(regime, words | {pdpt: RWX | 0x80}).pa == PAGE | VA & 0xFFF  # one large page for everything
    assert walk(regime, words | {pdpt: RWX | 0x80 | 1 << 12}).name == "EPT misconfiguration"
    small = replace(regime, ept=replace(regime.ept, gbpages=False))
    assert walk(small, words | {pdpt: RWX | 0x80}).name == "EPT misconfiguration"


def test_mode_based_execution_follows_the_guests_page():
    for leaf, bit in ((0x67, XU), (0x63, X)):  # a user page needs XU, a supervisor page X
        for entry in (R | XU, R | X):
            regime, words = machine(leaf=leaf, x9000=entry, controls={"mbec": True})
            end = walk(regime, words, replace(FETCH, user=leaf == 0x67))
            assert isinstance(end, Translation) == bool(entry & bit), (hex(leaf), hex(entry))


def test_violations_become_ve_unless_suppressed():
    regime, words = machine(x9000=0, controls={"ve": True})
    assert walk(regime, words).name == "#VE"
    regime, words = machine(x9000=1 << 63, controls={"ve": True})
    assert walk(regime, words).name == "EPT violation"
    regime, words = machine(x9000=W, controls={"ve": True})
    assert walk(regime, words).name == "EPT misconfiguration"  # never convertible


def test_supervisor_shadow_stacks():
    access = X86Access(AccessKind.WRITE, shadow_stack=True)
    for entry, good in ((R | 1 << 60, True), (R | W, False), (R, False)):
        regime, words = machine(leaf=0x61, x9000=entry, eptp=SSS)
        regime = replace(regime, guest=replace(regime.guest, registers={**regime.guest.registers, "CR4": 0x800020}))
        assert isinstance(walk(regime, {**words, **_supervisor(words)}, access), Translation) == good, hex(entry)


def _supervisor(words):
    return {GUEST_BASE + (VA >> 39 & 511) * 8: words[GUEST_BASE + (VA >> 39 & 511) * 8] & ~4}


def test_guest_paging_verification():
    controls = {"guest_paging_verification": True, "paging_write": True}
    writable = {f"x{frame:x}": RWX | 1 << 58 for frame in range(GUEST_BASE, GUEST_BASE + 0x4000, 0x1000)}
    regime, words = machine(x9000=RWX | 1 << 57, controls=controls, **writable)
    assert isinstance(walk(regime, words), Translation)
    regime, words = machine(x9000=RWX | 1 << 57, controls=controls, **writable | {"x102000": RWX})
    end = walk(regime, words)
    assert (end.name, EPT_QUALIFICATION["VGP"].get(end.code)) == ("EPT violation", 1)
    regime, words = machine(controls=controls)
    assert isinstance(walk(regime, words), Translation)


def test_sub_page_permissions():
    gpa, root = PAGE | VA & 0xFFF, 0x200_0000
    regime, words = machine(x9000=R | 1 << 61, controls={"spp": True, "sppt": root})
    assert walk(regime, words, WRITE).name == "SPP miss"
    at = root
    for level in (4, 3, 2):
        words[at + (gpa >> 3 + 9 * level & 511) * 8] = at + 0x1000 | 1
        at += 0x1000
    vector = at + (gpa >> 12 & 511) * 8
    bit = 1 << 2 * (gpa >> 7 & 31)
    assert isinstance(walk(regime, words | {vector: bit}, WRITE), Translation)
    assert walk(regime, words | {vector: ~(bit | 0xAAAA_AAAA_AAAA_AAAA) & (1 << 64) - 1}, WRITE).name == "EPT violation"
    assert walk(regime, words | {vector: bit << 1}, WRITE).name == "SPP misconfiguration"
    assert isinstance(walk(regime, words | {vector: 0}, READ), Translation)


def test_a_guest_without_paging():
    regime, words = machine()
    off = X86Regime.from_registers({"CR0": 0x10, "EFER": 0}, {})
    end = walk(replace(regime, guest=off), words, va=PAGE | 0x10)
    assert (end.pa, end.level) == (PAGE | 0x10, None)
    assert walk(replace(regime, guest=off), words, va=0x8000).name == "EPT violation"


@pytest.mark.parametrize("eptp", [0x1000 | 6, 0x1000 | 3 << 3 | 1, 0x1000 | 0x1E | 1 << 8, 1 << 50 | 0x1E])
def test_impossible_pointers_are_refused(eptp):
    with pytest.raises(RegisterError):
        Ept(eptp, maxphyaddr=46)
