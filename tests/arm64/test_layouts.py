"""Every arm64 layout: construct and the lowered masks must say the same of each single bit."""

import random

import pytest

from ptwalk.arch.arm64 import descriptors, faults, registers
from ptwalk.arch.arm64.kinds import KINDS


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_single_bit_reads_the_same_on_both_sides(name: str) -> None:
    layout = KINDS[name]
    for bit in range(layout.width):
        assert layout.decode(1 << bit) == layout.parse(1 << bit), f"bit {bit}"
        assert sum(1 for value in layout.decode(1 << bit).values() if value) == 1
    everything = (1 << layout.width) - 1
    assert layout.decode(everything) == layout.parse(everything)


# Bit numbers as in spec/arm64.md sections 1.2, 1.3, 1.8, which the declarations do not repeat.
FACTS = {
    "PAGE_4K": {
        "AttrIndx": (2, 3), "NS": (5, 1), "AP": (6, 2), "SH": (8, 2), "AF": (10, 1), "nG": (11, 1), "GP": (50, 1),
        "DBM": (51, 1), "Contiguous": (52, 1), "PXN": (53, 1), "UXN": (54, 1), "POIndex": (60, 3), "OA": (12, 36)
    },
    "BLOCK_4K": {
        "nT": (16, 1), "OA": (21, 27)
    },
    "BLOCK_4K_L1": {
        "OA": (30, 18)
    },
    "BLOCK_4K_LPA2_L0": {
        "OA": (39, 11), "OA_51_50": (8, 2)
    },
    "BLOCK_16K": {
        "OA": (25, 23)
    },
    "BLOCK_64K_LPA_L1": {
        "OA": (42, 6), "OA_51_48": (12, 4)
    },
    "TABLE_4K": {
        "NLTA": (12, 36), "PXNTable": (59, 1), "UXNTable": (60, 1), "APTable": (61, 2), "NSTable": (63, 1)
    },
    "TABLE_16K_LPA2": {
        "NLTA": (14, 36), "NLTA_51_50": (8, 2), "AF": (10, 1)
    },
    "TABLE_64K_LPA": {
        "NLTA": (16, 32), "NLTA_51_48": (12, 4)
    },
    "S2_PAGE_4K": {
        "MemAttr": (2, 4), "S2AP": (6, 2), "FnXS": (11, 1), "XN": (53, 2), "NS": (55, 1), "AssuredOnly": (58, 1),
        "S2POIndex": (59, 4)
    },
    "D128_LEAF": {
        "AttrIndx": (2, 4), "nT": (6, 1), "nDirty": (7, 1), "OA": (12, 44), "AMEC": (103, 1), "SKL": (109, 2),
        "Contiguous": (111, 1), "GP": (113, 1), "Protected": (114, 1), "PIIndex": (115, 4), "POIndex": (121, 4),
        "NS": (127, 1)
    },
    "D128_TABLE": {
        "DisCH": (112, 1), "PXNTable": (123, 1), "UXNTable": (124, 1), "APTable": (125, 2), "NSTable": (127, 1)
    },
    "TCR_EL1": {
        "T0SZ": (0, 6), "EPD0": (7, 1), "TG0": (14, 2), "T1SZ": (16, 6), "A1": (22, 1), "TG1": (30, 2),
        "IPS": (32, 3), "AS": (36, 1), "TBI1": (38, 1), "HA": (39, 1), "HD": (40, 1), "HPD1": (42, 1),
        "TBID0": (51, 1), "NFD1": (54, 1), "E0PD1": (56, 1), "DS": (59, 1), "MTX1": (61, 1)
    },
    "TCR2_EL1": {
        "PnCH": (0, 1), "POE": (3, 1), "D128": (5, 1), "PTTWI": (10, 1), "HAFT": (11, 1), "DisCH1": (15, 1)
    },
    "VTCR_EL2": {
        "SL0": (6, 2), "PS": (16, 3), "VS": (19, 1), "HD": (22, 1), "NSW": (29, 1), "DS": (32, 1), "SL2": (33, 1),
        "AssuredOnly": (34, 1), "S2POE": (37, 1), "D128": (38, 1), "GCSH": (40, 1), "TL0": (41, 1),
        "HAFT": (44, 1)
    },
    "GPCCR_EL3": {
        "PPS": (0, 3), "PGS": (14, 2), "GPC": (16, 1), "GPCP": (17, 1), "L0GPTSZ": (20, 4)
    },
    "SCTLR_EL1": {
        "M": (0, 1), "WXN": (19, 1), "SPAN": (23, 1), "EE": (25, 1), "EPAN": (57, 1)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FACTS))
def test_fields_lie_where_the_manual_has_them(name: str) -> None:
    layout = KINDS[name]
    assert {f: (layout[f].shift, layout[f].width) for f in FACTS[name]} == FACTS[name]


@pytest.mark.parametrize("name", [n for n in descriptors.LAYOUTS if n not in ("INVALID",)])
def test_addresses_survive_the_way_in_and_out(name: str) -> None:
    layout = descriptors.LAYOUTS[name]
    rng = random.Random(name)
    top = 56 if "D128" in name else 52 if "LPA" in name else 48
    low = next(f.shift for f in layout.values() if f.name in ("OA", "NLTA"))
    for _ in range(100):
        pa = rng.getrandbits(top) >> low << low
        raw = rng.getrandbits(layout.width) & ~layout.address_mask
        entry = descriptors.with_address(layout, raw, pa)
        assert descriptors.output_address(layout, entry) == pa
        assert entry & ~layout.address_mask == raw
    with pytest.raises(ValueError, match="cannot hold"):
        descriptors.with_address(layout, 0, 1 << top)


def test_fault_status_codes_are_those_of_the_manual() -> None:
    code, kind = faults.fault_status_code, faults.FaultType
    assert [code(kind.TRANSLATION, n) for n in (-2, -1, 0, 1, 2, 3)] == [0x2A, 0x2B, 4, 5, 6, 7]
    assert [code(kind.ADDRESS_SIZE, n) for n in (-2, -1, 0, 3)] == [0x2C, 0x29, 0, 3]
    assert [code(kind.GPCF_ON_WALK, n) for n in (-2, -1, 0, 3)] == [0x22, 0x23, 0x24, 0x27]
    assert code(kind.ALIGNMENT, 2) == 0x21
    assert code(kind.GPCF_ON_OUTPUT, 0) == 0x28
    with pytest.raises(KeyError):
        code(kind.ACCESS_FLAG, -1)
    assert len(faults.FAULT_STATUS_CODES) == len(set(faults.FAULT_STATUS_CODES))
    assert faults.describe_status(0x23) == "Granule Protection Fault on translation table walk, level -1"


def test_the_syndrome_layout_has_the_manuals_bits() -> None:
    iss = faults.ISS_DATA_ABORT
    assert {n: iss[n].shift for n in ("WnR", "S1PTW", "CM", "EA", "FnV", "VNCR", "ISV")} == {
        "WnR": 6, "S1PTW": 7, "CM": 8, "EA": 9, "FnV": 10, "VNCR": 13, "ISV": 24}  # fmt: skip
    assert registers.ESR_EL1["EC"].shift == 26
