"""The ID registers that tell which features of address translation a processor has (Arm ARM D24.2)."""

from __future__ import annotations

from collections.abc import Mapping

from ..layout import Layout, bits, merge

_PA_SIZES = (32, 36, 40, 42, 44, 48, 52, 56)


def _id(name: str, fields: str) -> Layout:
    return Layout(name, *(bits(f, 4) for f in fields.split()), title="memory model features", source=f"Arm ARM {name}")


LAYOUTS = merge(
    _id(
        "ID_AA64MMFR0_EL1",
        """PARange ASIDBits BigEnd SNSMem BigEndEL0 TGran16 TGran64 TGran4 TGran16_2 TGran64_2 TGran4_2 ExS RES0_A
        RES0_B FGT ECV""",
    ),
    _id(
        "ID_AA64MMFR1_EL1",
        "HAFDBS VMIDBits VH HPDS LO PAN SpecSEI XNX TWED ETS HCX AFP nTLBPA TIDCP1 CMOW ECBHB",
    ),
    _id(
        "ID_AA64MMFR2_EL1",
        "CnP UAO LSM IESB VARange CCIDX NV ST AT IDS FWB RES0_A TTL BBM EVT E0PD",
    ),
    _id(
        "ID_AA64MMFR3_EL1",
        "TCRX SCTLRX S1PIE S2PIE S1POE S2POE AIE MEC D128 D128_2 SNERR ANERR RES0_A SDERR ADERR Spec_FPACC",
    ),
)

# feature: register digit, field, values that mean it is there
FEATURES: dict[str, tuple[int, str, range]] = {
    "FEAT_LPA": (0, "PARange", range(6, 16)),
    "FEAT_HAFDBS": (1, "HAFDBS", range(1, 16)),
    "FEAT_HAFT": (1, "HAFDBS", range(3, 16)),
    "FEAT_HPDS": (1, "HPDS", range(1, 16)),
    "FEAT_PAN": (1, "PAN", range(1, 16)),
    "FEAT_PAN3": (1, "PAN", range(3, 16)),
    "FEAT_XNX": (1, "XNX", range(1, 16)),
    "FEAT_HCX": (1, "HCX", range(1, 16)),
    "FEAT_LVA": (2, "VARange", range(1, 16)),
    "FEAT_LVA3": (2, "VARange", range(2, 16)),
    "FEAT_TTST": (2, "ST", range(1, 16)),
    "FEAT_S2FWB": (2, "FWB", range(1, 16)),
    "FEAT_BBM": (2, "BBM", range(1, 16)),
    "FEAT_E0PD": (2, "E0PD", range(1, 16)),
    "FEAT_NV": (2, "NV", range(1, 16)),
    "FEAT_TCR2": (3, "TCRX", range(1, 16)),
    "FEAT_S1PIE": (3, "S1PIE", range(1, 16)),
    "FEAT_S2PIE": (3, "S2PIE", range(1, 16)),
    "FEAT_S1POE": (3, "S1POE", range(1, 16)),
    "FEAT_S2POE": (3, "S2POE", range(1, 16)),
    "FEAT_AIE": (3, "AIE", range(1, 16)),
    "FEAT_D128": (3, "D128", range(1, 16)),
}


def features_from_id_registers(registers: Mapping[str, int]) -> dict[str, int | str]:
    """`pamax` and the `FEAT_...` names (1 or 0) that the given ID registers decide; absent registers decide nothing.

    >>> found = features_from_id_registers({"ID_AA64MMFR0_EL1": 0x32310201126})
    >>> found["pamax"], found["FEAT_LPA2"], "FEAT_PAN" in found
    (52, 1, False)
    """
    found: dict[str, int | str] = {}
    for feature, (digit, field, values) in FEATURES.items():
        name = f"ID_AA64MMFR{digit}_EL1"
        if name in registers:
            found[feature] = int(LAYOUTS[name][field].get(registers[name]) in values)
    if "ID_AA64MMFR0_EL1" in registers:
        mmfr0 = LAYOUTS["ID_AA64MMFR0_EL1"].decode(registers["ID_AA64MMFR0_EL1"])
        found["pamax"] = _PA_SIZES[min(mmfr0["PARange"], len(_PA_SIZES) - 1)]
        found["FEAT_LPA2"] = int(mmfr0["TGran4"] == 1 or mmfr0["TGran16"] == 2)
    return found
