"""The compiled walker against the reference walker: random and hostile cases, 50,000 in each paging mode.

Guests under nested paging get 10,000 in each mode, as every walk of theirs is up to 35 table reads.
"""

from __future__ import annotations

import pytest

from ptwalk.mmu.x86_64.campaign import NESTED, SINGLE, Result, play, run
from ptwalk.mmu.x86_64.regime import X86Regime

SEED, CASES = 20261123, 50_000


@pytest.mark.parametrize("mode", SINGLE)
def test_kernel_equals_reference(mode: str) -> None:
    result = run(mode, CASES, SEED)
    print(f"seed {SEED}, {mode}: {result.outcomes}")
    assert not result.differences, result.differences[:3]
    assert result.cases == CASES
    assert min(result.outcomes[name] for name in ("translated", "#PF", "bus error")) > CASES // 200


@pytest.mark.parametrize("mode", SINGLE)
def test_kernel_equals_reference_under_nested_paging(mode: str) -> None:
    result = run(NESTED + mode, CASES // 5, SEED)
    print(f"seed {SEED}, nested {mode}: {result.outcomes}")
    assert not result.differences, result.differences[:3]
    assert min(result.outcomes[name] for name in ("translated", "#PF", "#VMEXIT(NPF)")) > CASES // 500


def test_a_difference_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference walker that forgets U/S must disagree with the kernel."""
    honest = X86Regime.on.func
    monkeypatch.setattr(X86Regime, "on", property(lambda self: honest(self) ^ {"WP"}))
    from ptwalk.mmu.x86_64 import campaign

    straight = campaign.translate

    def kernel(view: object, regime: X86Regime, *rest: object) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(X86Regime, "on", property(honest))
            straight(view, regime, *rest)  # type: ignore[arg-type]  # whatever the campaign passed

    monkeypatch.setattr(campaign, "translate", kernel)
    result = Result()
    for seed in range(20):
        play("4-level", seed, result)
    assert result.differences
