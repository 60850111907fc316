"""Every x86 layout: construct and the lowered masks must say the same of each single bit."""

import pytest

from ptwalk.arch.x86_64.kinds import KINDS


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_single_bit_reads_the_same_on_both_sides(name: str) -> None:
    layout = KINDS[name]
    for bit in range(layout.width):
        assert layout.decode(1 << bit) == layout.parse(1 << bit), f"bit {bit}"
        assert sum(1 for value in layout.decode(1 << bit).values() if value) == 1
    everything = (1 << layout.width) - 1
    assert layout.decode(everything) == layout.parse(everything)


# Bit numbers as in spec/x86_64.md sections 1.1 to 1.6 and 2, which the declarations do not repeat.
FACTS = {
    "PML5E": {"P": (0, 1), "RW": (1, 1), "US": (2, 1), "PWT": (3, 1), "PCD": (4, 1), "A": (5, 1), "PS": (7, 1),
              "R": (11, 1), "ADDR": (12, 40), "XD": (63, 1)},
    "PDPTE_1G": {"D": (6, 1), "PS": (7, 1), "G": (8, 1), "PAT": (12, 1), "RES0_13": (13, 17), "ADDR": (30, 22),
                 "PK": (59, 4)},
    "PDE_2M": {"PAT": (12, 1), "RES0_13": (13, 8), "ADDR": (21, 31), "PK": (59, 4)},
    "PTE": {"D": (6, 1), "PAT": (7, 1), "G": (8, 1), "R": (11, 1), "ADDR": (12, 40), "PK": (59, 4), "XD": (63, 1)},
    "PAE_PDPTE": {"RES0_1": (1, 2), "PWT": (3, 1), "RES0_5": (5, 4), "ADDR": (12, 40), "RES0_52": (52, 12)},
    "PAE_PTE": {"RES0_52": (52, 11), "XD": (63, 1)},
    "PDE32_4M": {"PS": (7, 1), "PAT": (12, 1), "ADDR_39_32": (13, 8), "RES0_21": (21, 1), "ADDR": (22, 10)},
    "CR0": {"PE": (0, 1), "WP": (16, 1), "PG": (31, 1)},
    "CR3": {"LAM_U57": (61, 1), "LAM_U48": (62, 1), "NOFLUSH": (63, 1)},
    "CR4": {"PSE": (4, 1), "PAE": (5, 1), "PGE": (7, 1), "LA57": (12, 1), "PCIDE": (17, 1), "SMEP": (20, 1),
            "SMAP": (21, 1), "PKE": (22, 1), "CET": (23, 1), "PKS": (24, 1), "LASS": (27, 1), "LAM_SUP": (28, 1)},
    "EFER": {"LME": (8, 1), "LMA": (10, 1), "NXE": (11, 1), "SVME": (12, 1)},
    "RFLAGS": {"AC": (18, 1)},
    "PKRU": {"AD0": (0, 1), "WD0": (1, 1), "AD15": (30, 1), "WD15": (31, 1)},
    "PF_ERROR_CODE": {"P": (0, 1), "WR": (1, 1), "US": (2, 1), "RSVD": (3, 1), "ID": (4, 1), "PK": (5, 1),
                      "SS": (6, 1), "HLAT": (7, 1), "SGX": (15, 1), "RMP": (31, 1)},
    "NPF_EXITINFO1": {"FINAL": (32, 1), "TABLE": (33, 1), "ENC": (34, 1), "SIZEM": (35, 1), "VMPL": (36, 1)},
    "EPT_PTE": {"R": (0, 1), "W": (1, 1), "X": (2, 1), "EMT": (3, 3), "IPAT": (6, 1), "A": (8, 1), "D": (9, 1),
                "XU": (10, 1), "VGP": (57, 1), "PW": (58, 1), "SSS": (60, 1), "SPP": (61, 1), "SVE": (63, 1)},
    "EPT_PDE": {"RES0_3": (3, 4), "PS": (7, 1)},
    "EPTP": {"MT": (0, 3), "WALK": (3, 3), "AD": (6, 1), "SSS": (7, 1), "RES0_8": (8, 4)},
    "EPT_QUALIFICATION": {"READ": (0, 1), "WRITE": (1, 1), "FETCH": (2, 1), "R": (3, 1), "XU": (6, 1),
                          "LA_VALID": (7, 1), "FINAL": (8, 1), "USER_PAGE": (9, 1), "XD_PAGE": (11, 1),
                          "NMI": (12, 1), "SHADOW_STACK": (13, 1), "SSS": (14, 1), "VGP": (15, 1), "ASYNC": (16, 1)},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FACTS))
def test_fields_lie_where_the_manual_has_them(name: str) -> None:
    layout = KINDS[name]
    assert {f: (layout[f].shift, layout[f].width) for f in FACTS[name]} == FACTS[name]
