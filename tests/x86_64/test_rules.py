"""Rules that no emulator at hand knows, or that the vectors do not reach; each expectation from the manual's text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptwalk.arch.errors import PtwalkError, RegisterError
from ptwalk.mmu.memory import WordMemory
from ptwalk.mmu.walk import AccessKind, Fault, Rights, Translation, outcome
from ptwalk.mmu.x86_64.access import X86Access
from ptwalk.mmu.x86_64.regime import X86Regime

READ, WRITE, FETCH = (X86Access(kind) for kind in AccessKind)
USER_READ, USER_WRITE, USER_FETCH = (X86Access(kind, user=True) for kind in AccessKind)
LA57, SMEP, SMAP, PKE, CET, PKS, LASS, LAM_SUP = (1 << n for n in (12, 20, 21, 22, 23, 24, 27, 28))
LAM_U57, LAM_U48 = 1 << 61, 1 << 62
AC = 1 << 18
HIGH = 0xFFFF_8000_0000_0000


def regime(cr4=0, cr3=0x1000, features=None, **registers):
    values = {"CR3": cr3, "CR4": 0x20 | cr4, **registers}
    return X86Regime.from_registers(values, {"maxphyaddr": 46, **(features or {})})


def everything(depth=4):
    """Every address maps to a page of 1 GByte at 0, for users; both halves."""
    tables = {0x1000 + 0x1000 * i + 8 * n: 0x2000 + 0x1000 * i | 0x27 for i in range(depth - 2) for n in range(512)}
    return tables | {0x1000 * (depth - 1) + 8 * n: 0xE7 for n in range(512)}


LONG4, LONG5 = everything(4), everything(5)


def walk(plan, va, access=READ, words=None):
    words = words or (LONG5 if plan.mode.va_bits == 57 else LONG4)
    return outcome(plan.walk(WordMemory(dict(words)), va, access))


# SDM 3A 4.4: data pointers only; bit 63 has to equal the highest bit that LAM leaves
LAM = [
    ("none", 0, 0, 0x1234_0000_0000_1000, READ, None),
    ("U48", LAM_U48, 0, 0x7FFF_0000_0000_1000, READ, 0x1000),
    ("U48 bit 47", LAM_U48, 0, 0x7FFF_8000_0000_1000, READ, None),
    ("U48 fetch", LAM_U48, 0, 0x7FFF_0000_0000_1000, FETCH, None),
    ("U48 supervisor pointer", LAM_U48, 0, 0x8000_8000_0000_1000, READ, None),
    ("U57", LAM_U57, 0, 0x7E00_0000_0000_1000, READ, 0x1000),
    ("U57 bits 56:48", LAM_U57, 0, 0x0001_0000_0000_1000, READ, None),
    ("both", LAM_U57 | LAM_U48, 0, 0x7E00_0000_0000_1000, READ, 0x1000),
    ("U57 wins over U48", LAM_U57 | LAM_U48, 0, 0x7FFF_0000_0000_1000, READ, None),
    ("SUP", 0, LAM_SUP, 0x8000_8000_0000_1000, READ, HIGH | 0x1000),
    ("SUP bit 47", 0, LAM_SUP, 0xFFFF_0000_0000_1000, READ, None),
    ("SUP user pointer", 0, LAM_SUP, 0x7FFF_0000_0000_1000, READ, None),
    ("SUP 5 levels", 0, LAM_SUP | LA57, 0x8100_0000_0000_1000, READ, 0xFF00_0000_0000_1000),
    ("U48 5 levels", LAM_U48, LA57, 0x7FFF_0000_0000_1000, READ, 0x1000),
    ("U57 5 levels", LAM_U57, LA57, 0x7EFF_0000_0000_1000, READ, 0x00FF_0000_0000_1000),
]  # fmt: skip


@pytest.mark.parametrize(("cr3", "cr4", "va", "access", "linear"), [case[1:] for case in LAM], ids=[c[0] for c in LAM])
def test_lam(cr3, cr4, va, access, linear):
    end = walk(regime(cr4, 0x1000 | cr3), va, access)
    if linear is None:
        assert (end.name, end.code) == ("#GP", 0)
    else:
        assert end.va == linear


# SDM 3A 4.6: bit 63 alone decides, before any table is read
LASS_CASES = [
    (LASS, 0, HIGH, USER_READ, False), (LASS, 0, HIGH, USER_FETCH, False), (LASS, 0, HIGH, READ, True),
    (LASS, 0, 0x1000, FETCH, False), (LASS, 0, 0x1000, READ, True), (LASS | SMAP, 0, 0x1000, READ, False),
    (LASS | SMAP, AC, 0x1000, READ, True), (LASS | SMAP, AC, 0x1000, replace(READ, implicit=True), False),
    (LASS | SMAP, AC, 0x1000, replace(USER_READ, implicit=True), False), (LASS | SMAP, 0, 0x1000, USER_READ, True),
    (0, 0, HIGH, USER_READ, True), (0, 0, 0x1000, FETCH, True),
]  # fmt: skip


@pytest.mark.parametrize(("cr4", "rflags", "va", "access", "good"), LASS_CASES)
def test_lass(cr4, rflags, va, access, good):
    end = walk(regime(cr4, RFLAGS=2 | rflags), va, access)
    assert isinstance(end, Translation) if good else (end.name, end.code, end.bit) == ("#GP", 0, "CR4.LASS")


def test_stack_references_raise_ss():
    assert walk(regime(), 1 << 47, replace(READ, stack=True)).name == "#SS"


def test_hlat_starts_elsewhere_and_restarts_where_r_is_set():
    hlat = {"HLATP": 0xA000, "HLAT_PREFIX_SIZE": 17}
    top = 0xA000 + 8 * 256
    words = LONG4 | {top: 0xB027, 0xB000: 1 << 30 | 0xE7}
    plan = regime(**hlat)
    assert walk(plan, HIGH | 0x1000, READ, words).pa == 1 << 30 | 0x1000
    assert walk(plan, 0x1000, READ, words).pa == 0x1000  # the prefix does not match: ordinary paging
    fault = walk(plan, HIGH | 1 << 40, READ, words)
    assert (fault.name, fault.code) == ("#PF", 0x80)
    for restart in ({top: 0xB827}, {0xB000: 1 << 30 | 0x8E7}):
        end = walk(plan, HIGH | 0x1000, READ, words | restart)
        assert (end.pa, {pa & ~0xFFF for pa, _, _ in end.updates} & {0xA000, 0xB000}) == (0x1000, set())
    assert walk(plan, HIGH, READ, words | {top: 0xB827 & ~1}).code == 0x80  # P is looked at first
    denied = walk(plan, HIGH, USER_WRITE, words | {0xB000: 1 << 30 | 0xE5})
    assert denied.code == 0x87
    assert plan.trees == ()


def test_an_entry_that_changes_under_the_walk_restarts_it():
    words = WordMemory(dict(LONG4) | {0x3000: 0x0000_0000_C7})
    plan, changed = regime(), []
    steps = []
    running = plan.walk(words, 0x1000, READ, update=True)
    while True:
        try:
            steps.append(next(running))
        except StopIteration as end:
            found = end.value
            break
        if steps[-1].pa == 0x3000 and not changed:
            changed.append(words.words[0x3000])
            words.words[0x3000] = 1 << 30 | 0xC7  # another processor maps something else
    assert [step.rule for step in steps].count("restart") == 1
    assert (found.pa, words.words[0x3000]) == (1 << 30 | 0x1000, 1 << 30 | 0xE7)


class Restless(WordMemory):
    """Memory in which another processor clears A at once."""

    def read_uint(self, pa, size=8):
        value = super().read_uint(pa, size)
        self.words[pa] = value ^ 1 << 9
        return value


def test_restarts_are_bounded():
    words = Restless(dict(LONG4) | {0x3000 + 8 * n: 0xC7 for n in range(512)})
    with pytest.raises(PtwalkError, match="changed 64 times under the walk"):
        outcome(regime().walk(words, 0x1000, READ, update=True))


# AND of R/W and U/S, OR of XD: exhaustively over a path of three entries
PATHS = [tuple(n >> 3 * i & 7 for i in range(3)) for n in range(512)]  # per entry: R/W, U/S, XD


def path(flags):
    """A PML4E, a PDPTE and a PDE that maps 2 MBytes, with these flags."""
    words = {}
    for i, (target, flag) in enumerate(zip((0x2000, 0x3000, 0xC0), flags, strict=True)):
        words[0x1000 * (i + 1)] = target | (flag & 3) << 1 | 0x21 | (flag >> 2) << 63
    return words


@pytest.fixture(scope="module")
def rights():
    """The six rights of every path under every combination of WP, SMEP and SMAP."""
    table = {}
    for cr4 in (0, SMEP, SMAP, SMEP | SMAP):
        for wp in (0, 1 << 16):
            plan = regime(cr4, CR0=0x80000001 | wp)
            for flags in PATHS:
                end = walk(plan, 0x1000, READ, path(flags))
                table[cr4, wp, flags] = end.rights if isinstance(end, Translation) else None
                if end.__class__ is not Translation:  # SMAP forbids this read; ask for a right it leaves
                    allowed = walk(plan, 0x1000, USER_READ, path(flags))
                    table[cr4, wp, flags] = allowed.rights if isinstance(allowed, Translation) else Rights(0)
    return table


def test_clearing_rw_or_us_never_enables_an_access(rights):
    supervisor = Rights.KR | Rights.KW | Rights.KX
    loosened = set()
    for (cr4, wp, flags), granted in rights.items():
        for i in range(3):
            for bit in (1, 2):
                fewer = tuple(f & ~bit if j == i else f for j, f in enumerate(flags))
                gained = rights[cr4, wp, fewer] & ~granted
                if bit == 2 and cr4:  # a page that is not the user's any more is open to supervisor accesses again
                    loosened.add(gained & supervisor)
                    gained &= ~supervisor
                assert not gained, (hex(cr4), wp, flags, fewer, gained)
    assert Rights.KX in loosened


def test_the_order_of_levels_does_not_matter(rights):
    for (cr4, wp, flags), granted in rights.items():
        assert rights[cr4, wp, tuple(sorted(flags))] == granted


def test_rights_are_what_the_accesses_themselves_find(rights):
    for (cr4, wp, flags), granted in rights.items():
        if sum(flags) % 5 == 0:
            plan = regime(cr4, CR0=0x80000001 | wp)
            for access in (READ, WRITE, FETCH, USER_READ, USER_WRITE, USER_FETCH):
                good = isinstance(walk(plan, 0x1000, access, path(flags)), Translation)
                assert good == bool(granted & access.right)


@pytest.mark.parametrize("access", [READ, WRITE, FETCH, USER_READ, USER_WRITE, USER_FETCH])
def test_a_second_walk_changes_nothing(access):
    for bits in range(64):
        flags = [(bits >> 2 * i & 3) << 5 for i in range(3)]  # A and D
        words = {0x1000: 0x2007 | flags[0], 0x2000: 0x3007 | flags[1], 0x3000: 0x87 | flags[2]}
        memory = WordMemory(dict(words))
        first = outcome(regime().walk(memory, 0x1000, access, update=True))
        after = dict(memory.words)
        second = outcome(regime().walk(memory, 0x1000, access, update=True))
        assert (second.updates, memory.words, second.pa) == ((), after, first.pa)
        assert after[0x1000] == words[0x1000] | 0x20
        assert after[0x3000] == words[0x3000] | (0x60 if access.is_write else 0x20)


def test_a_fault_tells_what_else_would_have_failed():
    fault = walk(regime(SMAP), 0x1000, USER_WRITE, path((3, 0, 6)))
    assert (fault.level, fault.rule) == (2, "a user access reaches a supervisor page")
    assert fault.bit == "US of the PDPTE at 0x0000000000002000"  # not the leaf is to blame
    assert fault.also == ("R/W: a write reaches a read-only page",)
    absent = walk(regime(), 0x1000, USER_WRITE, {0x1000: 0x2025, 0x2000: 0})
    assert (absent.bit, absent.also) == ("P", ("R/W: a write reaches a read-only page",))
    keys = walk(regime(PKS, PKRS=0b01), 0x1000, USER_READ, path((3, 3, 1)))
    assert keys.allowed == (0x25, 0x05)  # the manuals leave open whether the key is told


def test_memory_types_follow_pat_at_every_leaf_size():
    pat = 0x0007_0406_0105_0006 | 5 << 56 | 4 << 32
    leaves = {3: 1 << 12 | 0x80, 2: 1 << 12 | 0x80, 1: 1 << 7}
    names = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}
    for level, pat_bit in leaves.items():
        for index in range(8):
            leaf = (pat_bit if index & 4 else pat_bit & 0x80 if level > 1 else 0) | (index & 3) << 3 | 0x67
            words = {0x1000: 0x2027, 0x2000: 0x3027, 0x3000: 0x4027}
            words[0x1000 * (5 - level)] = leaf
            end = walk(regime(IA32_PAT=pat), 0x10, READ, words)
            assert (end.level, end.attributes["PAT index"]) == (level, index)
            assert end.attributes["memory type"] == names[pat >> 8 * index & 7]


def test_global_pages_count_only_in_leaves_and_with_pge():
    words = path((3, 3, 3)) | {0x3000: 0x1E7}
    assert not walk(regime(), 0x1000, READ, words).attributes["global"]
    assert walk(regime(1 << 7), 0x1000, READ, words).attributes["global"]


def test_the_encryption_and_shared_bits_leave_the_address():
    words = {0x1000: 1 << 47 | 0x2027, 0x2000: 1 << 47 | 0x3027, 0x3000: 1 << 47 | 0xE7}
    assert walk(regime(), 0x1000, READ, words).code == 9
    features = {"maxphyaddr": 48, "c_bit": 47, "sev_reduction": 5}
    sev = walk(regime(cr3=1 << 47 | 0x1000, features=features), 0x10, READ, words)
    assert (sev.pa, sev.attributes["encrypted"]) == (0x10, True)
    wide = words | {0x3000: 1 << 44 | 0xE7}
    assert walk(regime(features=features), 0x10, READ, wide).code == 9
    tdx = walk(regime(features={"maxphyaddr": 52, "shared_bit": 47}), 0x10, READ, words)
    assert (tdx.pa, tdx.attributes["shared"]) == (0x10, True)


def test_processors_differ_in_bit_8_and_in_1_gbyte_pages():
    for words in (path((3, 3, 3)) | {0x1000: 0x2127}, path((3, 3, 3)) | {0x2000: 0x3127}):
        assert isinstance(walk(regime(), 0x1000, READ, {**words, 0x3000: 0xE7}), Translation)
    upper = path((3, 3, 3)) | {0x1000: 0x2127}
    fault = walk(regime(features={"profile": "amd"}), 0x1000, READ, upper)
    assert (fault.code, fault.level) == (9, 4)
    gigabyte = path((3, 3, 3)) | {0x2000: 0xE7}
    assert isinstance(walk(regime(), 0x1000, READ, gigabyte), Translation)
    assert walk(regime(features={"gbpages": 0}), 0x1000, READ, gigabyte).bit == "PS"


def test_accessed_bits_of_a_faulting_walk_follow_the_profile():
    words = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x85}
    for profile, marked in (("architecture", set()), ("intel", {0x1000, 0x2000})):
        fault = walk(regime(features={"profile": profile}), 0x1000, USER_WRITE, words)
        assert isinstance(fault, Fault)
        assert {pa for pa, _, _ in fault.updates} == marked


def test_pse36_reaches_no_further_than_maxphyaddr():
    words = {0x1000: 1 << 13 + 5 | 0x83}  # address bit 37
    for width, good in ((36, False), (37, False), (38, True), (46, True)):
        plan = X86Regime.from_registers({"CR3": 0x1000, "CR4": 0x10, "EFER": 0}, {"maxphyaddr": width})
        end = outcome(plan.walk(WordMemory(dict(words)), 0x10, READ))
        assert (isinstance(end, Translation), end.code if isinstance(end, Fault) else end.pa) == (
            (True, 1 << 37 | 0x10) if good else (False, 9)
        )


def test_without_paging_addresses_are_physical():
    plan = X86Regime.from_registers({"CR0": 0x11, "EFER": 0}, {})
    end = outcome(plan.walk(WordMemory({}), 0x1234, WRITE))
    assert (end.pa, end.level, plan.trees, plan.mode.name) == (0x1234, None, (), "paging off")


REFUSED = [
    ({}, {}, "lack CR3"), ({"CR3": 1 << 51}, {"maxphyaddr": 46}, "lies beyond"), ({"CR3": -1}, {}, "64-bit"),
    ({"CR3": 1 << 52}, {}, "bits 60:52"),
    ({"CR3": 0, "CR0": 1 << 31}, {}, "needs CR0.PE"), ({"CR3": 0, "CR4": 0}, {}, "needs CR4.PAE"),
    ({"CR3": 0, "EFER": 1 << 8}, {}, "LMA equals"), ({"CR3": 0, "EFER": 1 << 10}, {}, "LMA equals"),
    ({"CR3": 0, "CR0": 1, "EFER": 0x500}, {}, "needs CR0.PG"), ({"CR3": 0}, {"maxphyaddr": 53}, "between 32 and 52"),
    ({"CR3": 0, "CR0": 0x80000001, "CR4": CET | 0x20}, {}, "needs CR0.WP"),
    ({"CR3": 0, "CR4": 1 << 17 | 0x20, "EFER": 0}, {}, "needs long mode"),
    ({"CR3": 0}, {"colour": 1}, "no such feature"), ({"CR3": 0}, {"vendor": "via"}, "intel or amd"),
    ({"CR3": 0}, {"c_bit": 3}, "between 32 and 51"),
]  # fmt: skip


@pytest.mark.parametrize(("registers", "features", "text"), REFUSED)
def test_undefined_registers_are_refused(registers, features, text):
    with pytest.raises(RegisterError, match=text):
        X86Regime.from_registers(registers, features)
