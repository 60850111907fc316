"""What happens to a linear address before any table is read: LAM, the canonical check, LASS (Intel SDM volume 3A 4)."""

from __future__ import annotations

from ..walk import Fault
from .access import X86Access
from .regime import X86Regime

SDM = "Intel SDM volume 3A"
_TOP = 1 << 63
_ALL = (1 << 64) - 1


def check(regime: X86Regime, va: int, access: X86Access) -> tuple[int, Fault | None]:
    """The address that is translated, and the fault that ends it here, if one does."""
    if not regime.is_long:
        return va & (1 << 32) - 1, None
    width = lam_width(regime, va, access)
    if width:
        metadata = (_TOP - 1) >> width << width
        sign = bool(va & _TOP)
        if bool(va >> width - 1 & 1) != sign:
            return va, _refuse(va, access, f"bit 63 and bit {width - 1} differ under LAM", "LAM", f"{SDM} 4.4")
        va = va | metadata if sign else va & ~metadata
    half = 1 << regime.mode.va_bits - 1
    if half <= va < (1 << 64) - half:
        text = f"the address is not canonical for {regime.mode.va_bits} bits"
        return va, _refuse(va, access, text, f"bits 63:{regime.mode.va_bits - 1}", f"{SDM} 4.5.3")
    if "LASS" in regime.on and (reason := lass(regime, va, access)):
        return va, _refuse(va, access, reason, "CR4.LASS", f"{SDM} 4.6")
    return va, None


def lam_width(regime: X86Regime, va: int, access: X86Access) -> int:
    """The address width that LAM leaves to this pointer, 0 where LAM does not apply: data accesses only."""
    if access.is_fetch or access.implicit:
        return 0
    if va & _TOP:
        return regime.mode.va_bits if "LAM_SUP" in regime.on else 0
    if "LAM_U57" in regime.on:
        return 57
    return 48 if "LAM_U48" in regime.on else 0


def lass(regime: X86Regime, va: int, access: X86Access) -> str:
    """The reason for which LASS forbids an access by the address's top bit alone, or nothing."""
    upper = bool(va & _TOP)
    if access.is_user:
        return "a user access to the supervisor half" if upper else ""
    if upper:
        return ""
    if access.is_fetch:
        return "a supervisor fetch from the user half"
    enforced = "SMAP" in regime.on and (access.implicit or "AC" not in regime.on)
    return "a supervisor data access to the user half" if enforced else ""


def _refuse(va: int, access: X86Access, rule: str, bit: str, source: str) -> Fault:
    return Fault(va=va & _ALL, name="#SS" if access.stack else "#GP", code=0, rule=rule, bit=bit, source=source)
