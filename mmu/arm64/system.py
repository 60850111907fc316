"""The system registers as the walk reads them: which regime, which security state, which controls are in force."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ...arch.arm64.registers import LAYOUTS
from .access import PASpace
from .controls import stage1_params, stage2_params
from .features import Choices, Features
from .params import S1Params, S2Params


class RegimeName(Enum):
    """The translation regimes (Arm ARM D8.1.2); the value is the Exception level whose registers control it."""

    EL10 = ("EL1&0", 1, True)
    EL20 = ("EL2&0", 2, True)
    EL2 = ("EL2", 2, False)
    EL3 = ("EL3", 3, False)

    @property
    def title(self) -> str:
        return self.value[0]

    @property
    def el(self) -> int:
        return self.value[1]

    @property
    def unprivileged(self) -> bool:
        """Whether EL0 takes part (HasUnprivileged)."""
        return self.value[2]


_FIELDS = {(register, name): field for register, layout in LAYOUTS.items() for name, field in layout.items()}


class SystemState:
    """Registers, features and choices together; controls that do not depend on the address are worked out once.

    `registers` maps the manual's names to values; a missing register reads as 0.

    >>> state = SystemState({"SCTLR_EL1": 1, "SCR_EL3": 1}, Features(), Choices())
    >>> state.regime(0).title, state.security(1).name, state.el2_enabled
    ('EL1&0', 'NonSecure', True)
    """

    def __init__(self, registers: Mapping[str, int], features: Features, choices: Choices) -> None:
        self.registers, self.features, self.choices = registers, features, choices
        self.deviates = choices.deviations
        self._s1: dict[tuple[RegimeName, int], S1Params] = {}
        self._s2: dict[PASpace, S2Params] = {}
        non_secure = self.get("SCR_EL3", "NS")
        self.el2_enabled = bool(non_secure or ("FEAT_SEL2" in features and self.get("SCR_EL3", "EEL2")))
        self.hcrx_enabled = "FEAT_HCX" in features and bool(self.get("SCR_EL3", "HXEn")) and self.el2_enabled
        tcr2 = "FEAT_TCR2" in features and bool(self.get("SCR_EL3", "TCR2En"))
        self.tcr2_el2_enabled = tcr2 and self.el2_enabled
        trapped = self.el2_enabled and not (self.hcrx_enabled and self.get("HCRX_EL2", "TCR2En"))
        self.tcr2_el1_enabled = tcr2 and not trapped
        self.has_secure_state = "FEAT_RME" not in features or "FEAT_SEL2" in features

    def get(self, register: str, field: str, layout: str = "") -> int:
        """A register's field; `layout` where the register's name alone does not choose it."""
        return _FIELDS[layout or register, field].get(self.registers.get(register, 0))

    def regime(self, el: int) -> RegimeName:
        """The regime that translates accesses made at Exception level `el` (TranslationRegime)."""
        if el == 3:
            return RegimeName.EL3
        host = bool(self.get("HCR_EL2", "E2H")) and self.el2_enabled
        if el == 2:
            return RegimeName.EL20 if host else RegimeName.EL2
        return RegimeName.EL20 if el == 0 and host and self.get("HCR_EL2", "TGE") else RegimeName.EL10

    def security(self, el: int) -> PASpace:
        """The security state at `el`, named by its physical address space (SecurityStateAtEL)."""
        rme = "FEAT_RME" in self.features
        if el == 3:
            return PASpace.Root if rme else PASpace.Secure
        if rme and self.get("SCR_EL3", "NSE"):
            return PASpace.Realm
        return PASpace.NonSecure if self.get("SCR_EL3", "NS") else PASpace.Secure

    def two_stages(self, regime: RegimeName) -> bool:
        """Whether stage 2 follows (it may still be off): EL1&0 with EL2 enabled."""
        return regime is RegimeName.EL10 and self.el2_enabled

    def stage1(self, regime: RegimeName, va: int) -> S1Params:
        """The stage 1 controls for the half of the address space that `va` lies in (VA bit 55 selects it)."""
        key = regime, va >> 55 & 1 if regime.unprivileged else 0
        if key not in self._s1:
            self._s1[key] = stage1_params(self, regime, key[1])
        return self._s1[key]

    def stage2(self, ipa_space: PASpace) -> S2Params:
        """The stage 2 controls; the IPA space matters in Secure state only."""
        if ipa_space not in self._s2:
            self._s2[ipa_space] = stage2_params(self, self.security(1), ipa_space)
        return self._s2[ipa_space]

    def stage1_on(self, regime: RegimeName) -> bool:
        """Whether stage 1 translates (AArch64_S1Enabled)."""
        if not self.get(f"SCTLR_EL{regime.el}", "M"):
            return False
        if regime is not RegimeName.EL10 or not self.el2_enabled:
            return True
        return not (self.get("HCR_EL2", "DC") or self.get("HCR_EL2", "TGE"))
