"""The compiled walker equals the reference walker: random and hostile tables, 50,000 cases of each mode."""

import random

import numpy as np
import pytest

from ptwalk.arch.arm64.registers import LAYOUTS
from ptwalk.mmu.arm64 import campaign
from ptwalk.mmu.arm64.access import Arm64Access
from ptwalk.mmu.arm64.kernels import FAULTS, translate
from ptwalk.mmu.arm64.regime import Arm64Regime
from ptwalk.mmu.kernels.batch import pack_info
from ptwalk.mmu.kernels.views import memory_view
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import AccessKind, outcome

SEED = 20_260_601
CASES = dict.fromkeys(campaign.MODES, 50_000) | {"stage2": 20_000}


@pytest.mark.parametrize("mode", campaign.MODES)
def test_kernel_equals_reference_on_random_and_hostile_tables(mode: str) -> None:
    result = campaign.run(mode, CASES[mode], SEED)
    print(f"seed {SEED}, {mode}: {result.cases} cases, {result.outcomes}")
    assert not result.differences, "\n".join(result.differences[:10])
    assert result.cases >= CASES[mode]
    common = ("translated", "Translation fault", "Permission fault", "Address size fault", "Access flag fault")
    assert all(result.outcomes.get(name, 0) > 50 for name in common), result.outcomes


def test_the_campaign_notices_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    work = campaign.make_round("4k", random.Random("noticed"))
    result = campaign.Result()
    campaign.compare(work, result, "as it is")
    assert not result.differences
    whole = work.memory()
    copies = [whole, _zeroed(whole)]
    monkeypatch.setattr(work, "memory", copies.pop)
    campaign.compare(work, result, "one side zeroed")
    assert result.differences


def _zeroed(ram: PhysicalMemory) -> PhysicalMemory:
    other = PhysicalMemory()
    for bank in ram.banks:
        other.add_bytes(bank.start, bytes(len(bank.data)))
    return other


def _small_regime() -> tuple[Arm64Regime, PhysicalMemory]:
    ram = PhysicalMemory()
    ram.add_ram(0x4000_0000, 1 << 20)
    for pa, entry in ((0x4000_0000, 0x4000_1003), (0x4000_1000, 0x4000_2003), (0x4000_2000, 0x4000_0743)):
        ram.write_uint(pa, entry)
    tcr = LAYOUTS["TCR_EL1"].build(T0SZ=25, T1SZ=25, TG1=2, IPS=2)
    values = {"TCR_EL1": tcr, "TTBR0_EL1": 0x4000_0000, "TTBR1_EL1": 0x4000_0000}
    return Arm64Regime.from_registers(values), ram


def test_regimes_the_kernel_does_not_take_go_to_the_reference_walker() -> None:
    regime, ram = _small_regime()
    values = dict(regime.system.registers) | {"TCR2_EL1": LAYOUTS["TCR2_EL1"].build(PIE=1), "PIR_EL1": 0x5555_5555}
    indirect = Arm64Regime.from_registers(values)
    vas = np.array([0x10, 0x1000, 1 << 40, (1 << 64) - 1], np.uint64)
    for taken in (regime, indirect):
        pa, info = np.zeros(4, np.uint64), np.zeros(4, np.uint64)
        translate(memory_view(ram), taken, vas, Arm64Access(AccessKind.READ), False, pa, info)
        expected = [outcome(taken.walk(ram, int(va))) for va in vas]
        assert info.tolist() == [pack_info(result, FAULTS) for result in expected]
        assert pa.tolist() == [getattr(result, "pa", 0) for result in expected]
        assert pa[0] == 0x4000_0010
