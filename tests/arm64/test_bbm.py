"""Break-before-make: the architecture's list of changes, and Linux's rule for live entries as a cross-check."""

import random

import pytest

from ptwalk.arch.arm64.descriptors import LAYOUTS, with_address
from ptwalk.arch.arm64.registers import LAYOUTS as REGISTERS
from ptwalk.mmu.arm64 import bbm, entries
from ptwalk.mmu.arm64.features import Choices
from ptwalk.mmu.arm64.regime import Arm64Regime

TCR = REGISTERS["TCR_EL1"].build(T0SZ=16, T1SZ=16, TG1=2, IPS=5)
VALUES = {"TCR_EL1": TCR, "TTBR0_EL1": 0x1000, "TTBR1_EL1": 0x2000, "MAIR_EL1": 0x00_00_00_00_F0_44_FF_FF}
PAGE, TABLE, BLOCK = LAYOUTS["PAGE_4K"], LAYOUTS["TABLE_4K"], LAYOUTS["BLOCK_4K"]
LIVE = PAGE.build(valid=1, page=1, AF=1, SH=3, nG=1, OA=0x40000)


def _verdict(old: int, new: int, level: int = 3, bbm_level: int = 0) -> bbm.Verdict:
    regime = Arm64Regime.from_registers(VALUES, {"FEAT_BBM": 1}, Choices(bbm_level=bbm_level))
    return regime.break_before_make(regime.trees[0].levels[level], old, new)


def _page(**fields: int) -> int:
    return LIVE | PAGE.build(**fields)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (with_address(PAGE, LIVE, 0x4001_0000), "output address"),
        (_page(AttrIndx=2), "memory type"),
        (LIVE & ~PAGE.mask("SH") | PAGE.build(SH=2), "SH changes"),
        (LIVE & ~PAGE.mask("nG"), "global"),
        (_page(Contiguous=1), "Contiguous is set"),
        (_page(NS=1), "NS changes"),
    ],
)
def test_changes_that_need_the_break(new: int, reason: str) -> None:
    verdict = _verdict(LIVE, new)
    assert not verdict.allowed
    assert reason in verdict.reason
    assert _verdict(LIVE, 0).allowed
    assert _verdict(0, new).allowed


@pytest.mark.parametrize(
    "new",
    [
        _page(AP=2), _page(AP=1), _page(UXN=1), _page(PXN=1), _page(DBM=1), LIVE & ~PAGE.mask("AF"), _page(SW_58_55=5),
        _page(SW_63=1), _page(POIndex=3), _page(AttrIndx=1), _page(AttrIndx=3), _page(GP=1),
    ],
)  # fmt: skip
def test_changes_that_may_be_made_live(new: int) -> None:
    verdict = _verdict(LIVE, new)
    assert verdict.allowed, verdict.reason
    assert verdict.reason.startswith("only ")


def test_a_change_of_size_follows_the_support_level() -> None:
    table = TABLE.build(valid=1, table=1, NLTA=0x50)
    block = BLOCK.build(valid=1, AF=1, SH=3, OA=0x201)
    marked = block | BLOCK.build(nT=1)
    for old, new in ((table, block), (block, table)):
        assert not _verdict(old, new, 2, 0).allowed
        assert not _verdict(old, new, 2, 1).allowed
        assert _verdict(old, new, 2, 2).allowed
    assert _verdict(table, marked, 2, 1).allowed
    assert not _verdict(table, marked, 2, 0).allowed
    assert _verdict(LIVE, _page(Contiguous=1), 3, 2).allowed
    moved = with_address(TABLE, table, 0x9000)
    assert not _verdict(table, moved, 2, 2).allowed
    assert _verdict(table, table | TABLE.build(PXNTable=1), 2, 0).allowed


def test_linux_never_allows_what_this_refuses() -> None:
    """Linux: live entries may differ in PXN, read-only, DBM, nG (0 to 1) and software bits only (arm64 mm/mmu.c)."""
    rng = random.Random(5)
    free = PAGE.mask("PXN", "DBM", "nG", "SW_58_55", "SW_63") | entries.AP2
    for _ in range(5000):
        old = rng.getrandbits(64) & ~PAGE.mask("Contiguous") | 3
        new = old ^ (rng.getrandbits(64) & (free if rng.random() < 0.5 else (1 << 64) - 1))
        if new & 3 != 3:
            continue
        linux_safe = not (old ^ new) & ~free and not (old & PAGE.mask("nG") and not new & PAGE.mask("nG"))
        if linux_safe:
            assert _SHARED.check(old, new).allowed, (hex(old), hex(new))


class _Shared:
    def __init__(self) -> None:
        self.regime = Arm64Regime.from_registers(VALUES)
        self.level = self.regime.trees[0].levels[3]

    def check(self, old: int, new: int) -> bbm.Verdict:
        return self.regime.break_before_make(self.level, old, new)


_SHARED = _Shared()
