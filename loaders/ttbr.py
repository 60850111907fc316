"""Root addresses as arm64's translation table base registers hold them."""

from __future__ import annotations

from ..arch.arm64.registers import LAYOUTS
from ..arch.errors import InputError
from ..arch.layout import Layout


def encode_ttbr(tcr: int, pa: int, field: str = "root", file: str | None = None) -> int:
    """The TTBR0_EL1 or TTBR1_EL1 value for a root at `pa`, ASID 0; InputError where the register cannot hold it.

    The 52-bit form is in force with TCR_EL1.DS, or with the 64K granule and IPS=6 (Arm ARM D24.2, TTBR0_EL1).

    >>> hex(encode_ttbr(1 << 59, 0xf_0000_0000_1040))
    '0x107c'
    """
    layout = ttbr_layout(tcr)
    if "BADDR_51_48" not in layout:
        if pa & ~layout.address_mask:
            raise InputError("no 48-bit base address of a table", file=file, field=field, value=pa)
        return pa
    low = layout["BADDR"].mask
    if pa & ~(low | 0xF << 48):
        raise InputError("no 52-bit base address of a table (64-byte aligned)", file=file, field=field, value=pa)
    return layout.build(BADDR_51_48=pa >> 48) | pa & low


def ttbr_layout(tcr: int) -> Layout:
    """The layout of TTBR0_EL1 and TTBR1_EL1 under this TCR_EL1: 48 or 52 address bits."""
    fields = LAYOUTS["TCR_EL1"].decode(tcr)
    wide = fields["DS"] or (fields["TG0"] == 1 and fields["IPS"] == 6)
    return LAYOUTS["TTBR0_EL1_52" if wide else "TTBR0_EL1"]
