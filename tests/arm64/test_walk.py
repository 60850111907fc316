"""The reference walker explains itself: rule, level, bit to blame, syndrome, and what else would have failed."""

import pytest

from ptwalk.arch.arm64.descriptors import LAYOUTS as D
from ptwalk.arch.arm64.faults import PAR_EL1, PAR_EL1_128, PAR_EL1_FAULT
from ptwalk.arch.arm64.registers import LAYOUTS as R
from ptwalk.arch.errors import InputError, RegisterError
from ptwalk.mmu.arm64.access import Arm64Access, Operation
from ptwalk.mmu.arm64.regime import Arm64Regime
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import AccessKind, Fault, Rights, Translation, finish, outcome

ROOT, PUD, PMD, PTE, S2_ROOT, S2_PMD = (0x4000_0000 + n * 0x1000 for n in range(6))
PAGE = D["PAGE_4K"].build(valid=1, page=1, AF=1, SH=3, OA=0x40010)
READ, WRITE, EXECUTE = AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE
TCR = {"T0SZ": 16, "T1SZ": 16, "TG1": 2, "IPS": 2}


def _table(pa: int, **fields: int) -> int:
    return D["TABLE_4K"].build(valid=1, table=1, NLTA=pa >> 12, **fields)


def _page(**fields: int) -> int:
    return PAGE | D["PAGE_4K"].build(**fields)


class Board:
    """One page at VA 0, four levels, and whatever registers a test wants."""

    def __init__(self, leaf: int = PAGE, **registers: int) -> None:
        self.ram = PhysicalMemory()
        self.ram.add_ram(0x4000_0000, 1 << 20)
        for at, entry in ((ROOT, _table(PUD)), (PUD, _table(PMD)), (PMD, _table(PTE)), (PTE, leaf)):
            self.ram.write_uint(at, entry)
        self.values = {
            "TCR_EL1": R["TCR_EL1"].build(**TCR),
            "TTBR0_EL1": ROOT,
            "TTBR1_EL1": ROOT,
            "MAIR_EL1": 0x44_04_FF,
            **registers,
        }

    def regime(self, features: dict[str, int] | None = None) -> Arm64Regime:
        return Arm64Regime.from_registers(self.values, features)

    def ask(
        self,
        va: int = 0,
        kind: AccessKind = READ,
        user: bool = False,
        *,
        operation: Operation | None = None,
        pan: bool = False,
        aligned: bool = True,
        update: bool = False,
    ) -> Fault | Translation:
        access = Arm64Access(kind, user, operation=operation, pan=pan, aligned=aligned)
        return outcome(self.regime().walk(self.ram, va, access, update=update))


def test_a_walk_tells_each_step_and_the_rights() -> None:
    steps, end = finish(Board(_page(AP=1, UXN=1)).regime().walk(_ram(_page(AP=1, UXN=1)), 0x123))
    assert isinstance(end, Translation)
    assert (end.pa, end.level, end.page_shift) == (0x4001_0123, 3, 12)
    assert end.rights == Rights.KR | Rights.KW | Rights.UR | Rights.UW
    assert [(step.name, step.linux_name, step.note) for step in steps] == [
        ("L0", "PGD", "table"), ("L1", "PUD", "table"), ("L2", "PMD", "table"), ("L3", "PTE", "leaf"),
    ]  # fmt: skip
    assert [step.pa for step in steps] == [ROOT, PUD, PMD, PTE]
    assert steps[-1].kind is D["PAGE_4K"]


def _ram(leaf: int) -> PhysicalMemory:
    return Board(leaf).ram


BLAME = [
    (_page(), READ, True, "AP[1]", 0x0F),
    (_page(AP=2), WRITE, False, "AP[2]", 0x0F),
    (_page(AP=1), EXECUTE, False, "AP[1] (writable at EL0)", 0x0F),
    (_page(PXN=1), EXECUTE, False, "PXN", 0x0F),
    (_page(AP=1, UXN=1), EXECUTE, True, "UXN", 0x0F),
    (PAGE & ~D["PAGE_4K"].mask("AF"), READ, False, "AF", 0x0B),
    (PAGE & ~1, READ, False, "valid", 0x07),
    (PAGE & ~2, READ, False, "descriptor type", 0x07),
    (D["PAGE_4K"].build(valid=1, page=1, AF=1, OA=1 << 30), READ, False, "OA beyond the 40 bits of TCR_EL1.IPS", 0x03),
]


@pytest.mark.parametrize(("leaf", "kind", "user", "bit", "code"), BLAME)
def test_faults_name_the_bit_to_blame(leaf: int, kind: AccessKind, user: bool, bit: str, code: int) -> None:
    fault = Board(leaf).ask(0, kind, user)
    assert isinstance(fault, Fault)
    assert (fault.bit, fault.code, fault.level, fault.entry_pa, fault.entry) == (bit, code, 3, PTE, leaf)
    assert fault.source.startswith("Arm ARM")


def test_hierarchical_bits_are_blamed_at_their_level() -> None:
    board = Board(_page(AP=1))
    board.ram.write_uint(PUD, _table(PMD, APTable=2))
    fault = board.ask(0, WRITE)
    assert isinstance(fault, Fault)
    assert fault.bit == "APTable[1] at level 1"
    board.ram.write_uint(PMD, _table(PTE, UXNTable=1))
    fault = board.ask(0, EXECUTE, user=True)
    assert isinstance(fault, Fault)
    assert fault.bit == "UXNTable at level 2"
    board.values["TCR_EL1"] |= R["TCR_EL1"].build(HPD0=1)
    assert isinstance(board.ask(0, WRITE), Translation), "HPD0 makes the hierarchical bits ignored"


def test_registers_are_blamed_too() -> None:
    board = Board(_page(AP=1), SCTLR_EL1=R["SCTLR_EL1"].build(M=1, WXN=1))
    wxn = board.ask(0, EXECUTE, user=True)
    pan = board.ask(0, READ, pan=True)
    assert isinstance(wxn, Fault)
    assert isinstance(pan, Fault)
    assert (wxn.bit, pan.bit) == ("SCTLR_EL1.WXN", "PSTATE.PAN")
    for name, user in (("EPD0", False), ("E0PD0", True)):
        board = Board(_page(AP=1))
        board.values["TCR_EL1"] |= R["TCR_EL1"].build(**{name: 1})
        fault = board.ask(0, user=user)
        assert isinstance(fault, Fault)
        assert (fault.bit, fault.code, fault.level) == (f"TCR_EL1.{name}", 4, 0)


def test_what_else_would_have_failed_is_listed_in_order() -> None:
    leaf = D["PAGE_4K"].build(valid=1, page=1, AP=2, AttrIndx=1, OA=1 << 30)
    fault = Board(leaf).ask(0, WRITE, user=True, aligned=False)
    assert isinstance(fault, Fault)
    assert fault.name == "Address size fault"
    assert [line.split(":")[0] for line in fault.also] == [
        "Access flag fault L3", "Alignment fault", "Permission fault L3",
    ]  # fmt: skip
    early = Board(EPD=0)
    early.values["TCR_EL1"] |= R["TCR_EL1"].build(EPD0=1, E0PD0=1)
    fault = early.ask(1 << 50, user=True)
    assert isinstance(fault, Fault)
    assert fault.rule == "VAIsOutOfRange"
    assert [line.rsplit("(", 1)[1] for line in fault.also] == ["TCR_EL1.E0PD0)", "TCR_EL1.EPD0)"]


def test_atomics_report_a_read_when_reading_is_denied() -> None:
    fault = Board().ask(0, WRITE, user=True, operation=Operation.ATOMIC)
    assert isinstance(fault, Fault)
    assert fault.syndrome["ISS"] == 0x0F, "WnR is 0: the read was refused first"
    fault = Board(_page(AP=3)).ask(0, WRITE, user=True, operation=Operation.ATOMIC)
    assert isinstance(fault, Fault)
    assert fault.syndrome["ISS"] == 0x4F


def test_access_flag_and_dirty_state_are_written_only_when_asked() -> None:
    leaf = _page(AP=2, DBM=1) & ~D["PAGE_4K"].mask("AF")
    board = Board(leaf)
    board.values["TCR_EL1"] |= R["TCR_EL1"].build(HA=1, HD=1)
    wanted = leaf & ~D["PAGE_4K"].build(AP=2) | D["PAGE_4K"].mask("AF")
    told = board.ask(0, WRITE)
    assert isinstance(told, Translation)
    assert told.updates == ((PTE, leaf, wanted),)
    assert board.ram.read_uint(PTE) == leaf
    assert isinstance(board.ask(0, WRITE, update=True), Translation)
    assert board.ram.read_uint(PTE) == wanted
    tested = Board(leaf)
    tested.values = board.values
    assert isinstance(tested.ask(0, WRITE, operation=Operation.AT_WRITE, update=True), Translation)
    assert tested.ram.read_uint(PTE) == leaf | D["PAGE_4K"].mask("AF"), "AT sets no dirty state"


def _with_stage2(leaf_ap: int = 3) -> Board:
    board = Board(_page(AP=1))
    block = D["S2_BLOCK_4K"].build(valid=1, AF=1, SH=3, MemAttr=15, S2AP=leaf_ap, OA=0x40000000 >> 21)
    board.ram.write_uint(S2_ROOT + 8, _table(S2_PMD))
    board.ram.write_uint(S2_PMD, block)
    board.values |= {
        "HCR_EL2": R["HCR_EL2"].build(VM=1, RW=1),
        "VTCR_EL2": R["VTCR_EL2"].build(T0SZ=25, SL0=1, PS=2),
        "VTTBR_EL2": S2_ROOT,
    }
    return board


def test_stage_2_faults_carry_the_intermediate_address() -> None:
    end = _with_stage2().ask(0x10)
    assert isinstance(end, Translation)
    assert (end.pa, end.attributes["ipa"], end.attributes["stage 2 level"]) == (0x4001_0010, 0x4001_0010, 2)
    walk = _with_stage2(leaf_ap=2).ask(0)
    assert isinstance(walk, Fault)
    assert (walk.stage, walk.name, walk.level, walk.bit) == (2, "Permission fault", 2, "S2AP[0]")
    assert walk.syndrome["ISS"] == 0x8E, "S1PTW"
    assert walk.syndrome["HPFAR_EL2"] & (1 << 60) - 1 == ROOT >> 12 << 4
    write = _with_stage2(leaf_ap=1).ask(0, WRITE)
    assert isinstance(write, Fault)
    assert (write.stage, write.bit, write.syndrome["ISS"]) == (2, "S2AP[1]", 0x4E)
    assert "HPFAR_EL2" not in write.syndrome, "UNKNOWN for a plain stage 2 Permission fault"


def test_par_el1_of_address_translation_instructions() -> None:
    board = _with_stage2()
    regime = board.regime()
    end = outcome(regime.walk(board.ram, 0, Arm64Access.at("S12E1R")))
    assert isinstance(end, Translation)
    assert end.attributes["PAR_EL1"] == PAR_EL1.build(SH=3, NS=1, NSE=1, PA=0x40010, ATTR=0xFF)
    board.ram.write_uint(PTE, 0)
    end = outcome(regime.walk(board.ram, 0, Arm64Access.at("S1E0W")))
    assert isinstance(end, Fault)
    assert end.syndrome["PAR_EL1"] == PAR_EL1_FAULT.build(F=1, FST=0x07, RES1=1)
    assert end.syndrome["ISS"] == 0x147, "AT reports CM and WnR"


def test_a_table_outside_memory_is_an_external_abort_on_the_walk() -> None:
    board = Board()
    board.ram.write_uint(PMD, _table(0x9000_0000))
    fault = board.ask()
    assert isinstance(fault, Fault)
    assert (fault.name, fault.code, fault.level) == ("Synchronous External abort on translation table walk", 0x17, 3)


def test_a_table_that_points_at_itself_ends() -> None:
    board = Board()
    board.ram.write_uint(ROOT, _table(ROOT, AF=1))
    end = board.ask()
    assert isinstance(end, Translation)
    assert end.pa == ROOT, "at level 3 the entry is a page: the table itself"


def test_lpa2_roots_need_no_page_alignment_and_reach_level_minus_1() -> None:
    tcr = R["TCR_EL1"].build(T0SZ=12, T1SZ=12, TG1=2, IPS=6, DS=1)
    root = 0x000C_4000_0000_0A40
    ttbr = root & (1 << 48) - 1 | (root >> 48) << 2
    regime = Arm64Regime.from_registers({"TCR_EL1": tcr, "TTBR0_EL1": ttbr, "TTBR1_EL1": ttbr})
    low, high = regime.trees
    assert (low.root, low.levels[0].number, low.levels[0].index_bits, low.root_size) == (root & ~127, -1, 4, 128)
    assert (high.va_start, high.va_end) == ((1 << 64) - (1 << 52), 1 << 64)
    assert {"FEAT_LPA2", "FEAT_LPA"} <= set(regime.implied)
    assert regime.describe()["pamax"] == 52


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"T0SZ": 60}, "T0SZ is 60, above the maximum"),
        ({"TG0": 3}, "reserved granule size"),
        ({"T1SZ": 3}, "T1SZ is 3, below the minimum"),
    ],
)
def test_registers_without_meaning_are_refused(change: dict[str, int], message: str) -> None:
    values = {"TCR_EL1": R["TCR_EL1"].build(**{**TCR, **change}), "TTBR0_EL1": ROOT, "TTBR1_EL1": ROOT}
    with pytest.raises(RegisterError, match=message):
        Arm64Regime.from_registers(values)


def test_other_refusals() -> None:
    with pytest.raises(RegisterError, match="no walk without TCR_EL1"):
        Arm64Regime.from_registers({"TTBR0_EL1": 0})
    with pytest.raises(RegisterError, match="beyond the 40 address bits"):
        Arm64Regime.from_registers({"TCR_EL1": R["TCR_EL1"].build(**TCR), "TTBR0_EL1": 1 << 44, "TTBR1_EL1": 0})
    with pytest.raises(RegisterError, match="does not fit"):
        Arm64Regime.from_registers({"TCR_EL1": 1 << 64})
    with pytest.raises(InputError, match="64 bits"):
        Board().regime().walk(PhysicalMemory(), 1 << 64)
    assert len(Arm64Regime.from_registers({"TCR_EL1": R["TCR_EL1"].build(**TCR), "TTBR0_EL1": ROOT}).trees) == 1


def test_par_el1_is_128_bits_wide_under_128_bit_descriptors() -> None:
    leaf = D["D128_LEAF"].build(valid=1, AF=1, SH=3, OA=0x40010, PIIndex=0, SKL=0)
    board = Board()
    tcr = R["TCR_EL1"].build(T0SZ=43, T1SZ=43, TG1=2, IPS=2)  # 21 bits: one level 3 table after a level 2 table
    board.ram.write_uint(ROOT, D["D128_TABLE"].build(valid=1, NLTA=PUD >> 12), 16)
    board.ram.write_uint(PUD + 16, leaf, 16)
    board.values |= {"TCR_EL1": tcr, "TCR2_EL1": R["TCR2_EL1"].build(D128=1), "PIR_EL1": 5}
    regime = board.regime({"FEAT_TTST": 1, "pamax": 56})
    assert regime.trees[0].entry_size == 16
    end = outcome(regime.walk(board.ram, 0x1008, Arm64Access.at("S1E1W")))
    assert isinstance(end, Translation)
    assert end.pa == 0x4001_0008
    assert end.attributes["PAR_EL1"] == PAR_EL1_128.build(SH=3, NS=1, NSE=1, PA=0x40010, ATTR=0xFF, D128=1)
    end = outcome(regime.walk(board.ram, 0x2000, Arm64Access.at("S1E1W")))
    assert isinstance(end, Fault)
    assert end.syndrome["PAR_EL1"] == 1 | 0x07 << 1 | 1 << 11 | 1 << 64


def test_non_fault_loads_meet_nfd_before_epd() -> None:
    board = Board(_page(AP=1))
    board.values["TCR_EL1"] |= R["TCR_EL1"].build(NFD0=1, EPD0=1)
    access = Arm64Access(READ, user=True, non_fault=True)
    fault = outcome(board.regime().walk(board.ram, 0, access))
    assert isinstance(fault, Fault)
    assert fault.bit == "TCR_EL1.NFD0"
    assert fault.also[0].endswith("(TCR_EL1.EPD0)")
