"""Which registers there are, how they are laid out, and what a walk takes those to hold that nobody gave."""

from __future__ import annotations

from collections.abc import Mapping

from ..arch.layout import Layout
from ..loaders.ttbr import ttbr_layout
from ..mmu.regime import Regime

__all__ = ["assumed", "register_layouts", "ttbr_layout"]


def register_layouts(arch: str) -> Mapping[str, Layout]:
    """The registers that a walk on `arch` may read, by the manual's name.

    >>> "CR4" in register_layouts("x86_64"), "TTBR0_EL1_52" in register_layouts("arm64")
    (True, False)
    """
    if arch == "arm64":
        from ..arch.arm64.registers import LAYOUTS

        return {name: layout for name, layout in LAYOUTS.items() if not name.endswith(("_52", "_128", "_E2H"))}
    from ..arch.x86_64.registers import LAYOUTS as X86

    return {name: layout for name, layout in X86.items() if name != "EPTP"}


def assumed(regime: Regime) -> Mapping[str, int]:
    """Every register's value in a regime, those included that nobody gave."""
    from ..mmu.x86_64.regime import X86Regime

    if isinstance(regime, X86Regime):
        return regime.registers
    from ..mmu.arm64.regime import Arm64Regime

    return regime.system.registers if isinstance(regime, Arm64Regime) else {}
