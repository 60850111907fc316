"""Fault status codes, syndrome and PAR_EL1 layouts: what an aborted access reports (Arm ARM D24.2.40, D24.2.120)."""

from __future__ import annotations

from enum import IntEnum

from ..layout import Layout, address, bit, bits, merge, res0


class FaultType(IntEnum):
    """The kinds of fault a translation can end in (Arm ARM J1.1, type Fault; numbers as in Arm's own model)."""

    NONE = 0
    ACCESS_FLAG = 1
    ALIGNMENT = 2
    PERMISSION = 5
    TRANSLATION = 6
    ADDRESS_SIZE = 7
    SYNC_EXTERNAL = 8
    SYNC_EXTERNAL_ON_WALK = 9
    GPCF_ON_WALK = 12
    GPCF_ON_OUTPUT = 13

    @property
    def title(self) -> str:
        """The manual's name.

        >>> FaultType.ADDRESS_SIZE.title
        'Address size fault'
        """
        return _TITLES[self]


_TITLES = {
    FaultType.NONE: "no fault",
    FaultType.ACCESS_FLAG: "Access flag fault",
    FaultType.ALIGNMENT: "Alignment fault",
    FaultType.PERMISSION: "Permission fault",
    FaultType.TRANSLATION: "Translation fault",
    FaultType.ADDRESS_SIZE: "Address size fault",
    FaultType.SYNC_EXTERNAL: "Synchronous External abort",
    FaultType.SYNC_EXTERNAL_ON_WALK: "Synchronous External abort on translation table walk",
    FaultType.GPCF_ON_WALK: "Granule Protection Fault on translation table walk",
    FaultType.GPCF_ON_OUTPUT: "Granule Protection Fault",
}

_BY_LEVEL = {
    FaultType.ADDRESS_SIZE: {-2: 0x2C, -1: 0x29, 0: 0x00, 1: 0x01, 2: 0x02, 3: 0x03},
    FaultType.TRANSLATION: {-2: 0x2A, -1: 0x2B, 0: 0x04, 1: 0x05, 2: 0x06, 3: 0x07},
    FaultType.ACCESS_FLAG: {0: 0x08, 1: 0x09, 2: 0x0A, 3: 0x0B},
    FaultType.PERMISSION: {0: 0x0C, 1: 0x0D, 2: 0x0E, 3: 0x0F},
    FaultType.SYNC_EXTERNAL_ON_WALK: {-2: 0x12, -1: 0x13, 0: 0x14, 1: 0x15, 2: 0x16, 3: 0x17},
    FaultType.GPCF_ON_WALK: {-2: 0x22, -1: 0x23, 0: 0x24, 1: 0x25, 2: 0x26, 3: 0x27},
}
_PLAIN = {FaultType.SYNC_EXTERNAL: 0x10, FaultType.ALIGNMENT: 0x21, FaultType.GPCF_ON_OUTPUT: 0x28}


def fault_status_code(fault: FaultType, level: int) -> int:
    """The 6-bit code of ESR_ELx.ISS[5:0] and PAR_EL1.FST (EncodeLDFSC); KeyError: no code at that level.

    >>> hex(fault_status_code(FaultType.TRANSLATION, -1)), hex(fault_status_code(FaultType.PERMISSION, 3))
    ('0x2b', '0xf')
    """
    return _PLAIN[fault] if fault in _PLAIN else _BY_LEVEL[fault][level]


def _table() -> dict[int, str]:
    table = {code: f"{fault.title}, level {n}" for fault, codes in _BY_LEVEL.items() for n, code in codes.items()}
    table |= {code: fault.title for fault, code in _PLAIN.items()}
    parity = "Synchronous parity or ECC error on memory access"
    table |= {0x11: "Synchronous Tag Check Fault", 0x18: parity, 0x30: "TLB conflict abort"}
    walk = {-1: 0x1B, 0: 0x1C, 1: 0x1D, 2: 0x1E, 3: 0x1F}
    table |= {code: f"{parity} on translation table walk, level {n}" for n, code in walk.items()}
    return table | {
        0x31: "Unsupported atomic hardware update fault",
        0x34: "IMPLEMENTATION DEFINED fault (Lockdown)",
        0x35: "IMPLEMENTATION DEFINED fault (Unsupported Exclusive or Atomic access)",
    }


FAULT_STATUS_CODES: dict[int, str] = dict(sorted(_table().items()))


def describe_status(code: int) -> str:
    """What a fault status code says.

    >>> describe_status(0x0f), describe_status(0x3f)
    ('Permission fault, level 3', 'reserved')
    """
    return FAULT_STATUS_CODES.get(code, "reserved")


ISS_DATA_ABORT = Layout(
    "ISS_DATA_ABORT",
    bits("DFSC", 6),
    bit("WnR"),
    bit("S1PTW"),
    bit("CM"),
    bit("EA"),
    bit("FnV"),
    bits("SET", 2),
    bit("VNCR"),
    bit("AR"),
    bit("SF"),
    bits("SRT", 5),
    bit("SSE"),
    bits("SAS", 2),
    bit("ISV"),
    # ISS2, ESR_ELx[55:32]
    bits("Xs", 5),
    bit("DirtyBit"),
    bit("Overlay"),
    bit("TagAccess_or_AssuredOnly"),
    res0(15),
    title="ISS[24:0] and ISS2[22:0] of a Data Abort, side by side",
    source="Arm ARM D24.2.40",
)
TOP_LEVEL_BIT = 21  # ISS bit of a Permission fault with ISV=0 (FEAT_THE)

_PAR_SOURCE = "Arm ARM D24.2.120"
_PAR_FAULT = (bit("F"), bits("FST", 6), res0(), bit("PTW"), bit("S"), res0(), bit("RES1"), bit("AssuredOnly"),
              bit("TopLevel"), bit("Overlay"), bit("DirtyBit"), res0(48))  # fmt: skip
_PAR_LOW = (bit("F"), res0(6), bits("SH", 2), bit("NS"), bit("IMPDEF"), bit("NSE"))
_FAULTED, _DONE = "after an AT instruction that faulted (F=1)", "after an AT instruction that succeeded (F=0)"
PAR_EL1_FAULT = Layout("PAR_EL1_FAULT", *_PAR_FAULT, title=f"physical address register {_FAULTED}", source=_PAR_SOURCE)
PAR_EL1 = Layout(
    "PAR_EL1",
    *_PAR_LOW,
    address("PA", 44),
    bits("ATTR", 8),
    title=f"physical address register {_DONE}",
    source=_PAR_SOURCE,
)
PAR_EL1_FAULT_128 = Layout(
    "PAR_EL1_FAULT_128",
    *_PAR_FAULT,
    bit("D128"),
    res0(63),
    title=f"physical address register, 128-bit form, {_FAULTED}",
    source=_PAR_SOURCE,
)
PAR_EL1_128 = Layout(
    "PAR_EL1_128",
    *_PAR_LOW,
    res0(44),
    bits("ATTR", 8),
    bit("D128"),
    res0(11),
    bits("PA", 44),
    res0(8),
    title=f"physical address register, 128-bit form, {_DONE}",
    source=_PAR_SOURCE,
)
LAYOUTS = merge(PAR_EL1, PAR_EL1_FAULT, PAR_EL1_128, PAR_EL1_FAULT_128)
