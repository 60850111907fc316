"""What a processor implements and how it answers where the architecture leaves the answer open.

`FEATURES` names the architectural features that change a walk; `Choices` holds the IMPLEMENTATION DEFINED and
CONSTRAINED UNPREDICTABLE answers, with the values of Arm's vectors as defaults, and the deviations of emulators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...arch.errors import InputError

FEATURES = (
    "FEAT_HAFDBS", "FEAT_LPA", "FEAT_LVA", "FEAT_LPA2", "FEAT_TTST", "FEAT_PAN", "FEAT_PAN3", "FEAT_E0PD", "FEAT_XNX",
    "FEAT_S2FWB", "FEAT_BBM", "FEAT_HPDS", "FEAT_XS", "FEAT_TCR2", "FEAT_HCX", "FEAT_S1PIE", "FEAT_S1POE",
    "FEAT_S2PIE", "FEAT_S2POE", "FEAT_D128", "FEAT_LVA3", "FEAT_THE", "FEAT_HAFT", "FEAT_AIE", "FEAT_RME", "FEAT_SEL2",
    "FEAT_NV", "FEAT_MTE4",
)  # fmt: skip

PA_SIZES = (32, 36, 40, 42, 44, 48, 52, 56)

DEVIATIONS = {
    "any-block-level": "a block descriptor is accepted at levels 0 to 2 (QEMU itself stops at one at level -1)",
    "block-low-bits-ored": "address bits of a block descriptor below the block's size are OR-ed into the output",
    "contiguous-ignored": "the Contiguous bit changes no output address",
    "at-sets-dirty": "an address translation for a write sets the dirty state",
    "cache-ops-pass": "cache maintenance by VA never faults",
    "par-sh-raw": "PAR_EL1.SH is not forced to 0b10 for Device and Non-cacheable memory",
    "device-by-low-nibble": "Device and Normal stages combine by the low nibbles of their MAIR-style attributes",
    "fwb-device-of-stage2": "with HCR_EL2.FWB a Device MemAttr gives its own type, however strict stage 1's is",
    "no-device-alignment": "an unaligned access to Device memory does not fault",
    "hpfar-on-permission": "HPFAR_EL2 is filled on a stage 2 Permission fault",
    "high-oa-ignored": "address bits 51:48 (51:50 with DS) of a descriptor are ignored below an output size of 52",
    "oa-size-of-descriptor": "the output size is checked against the address in the descriptor, not the composed one",
    "oa-size-unchecked": "output and table addresses are never checked against the output size",
    "s1ptw-level-of-stage1": "a stage 2 fault on a stage 1 table reports the stage 1 level",
    "s1ptw-is-translation": "a stage 2 fault on a stage 1 table is reported as a Translation fault",
    "vtcr-ps-limits-ipa": "VTCR_EL2.PS, not the implemented size, limits T0SZ and the start level",
    "stage2-16k-level-0-refused": "a 16K stage 2 walk cannot start at level 0, not even with VTCR_EL2.DS",
    "clean-dbm-not-writable-for-fetch": "a clean DBM page does not count as writable for PXN by EL0 write and WXN",
    "ptw-sets-af-first": "with HCR_EL2.PTW the stage 2 access flag of a Device-mapped table is set before the fault",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Answers the architecture leaves open; the defaults are those of Arm's vectors.

    `nt_block_faults`: nT=1 faults at BBM level 1 and 2. `bbm_level`: FEAT_BBM support level.
    `contig_misprog_faults`: a Contiguous range larger than the input range faults. `txsz_above_max_faults`,
    `txsz_below_min_faults`: Translation fault, else clamped. `af_update_on_fault`, `dirty_update_on_fault`: written
    although a Permission or Alignment fault is reported. `device_fetch_faults`: instruction fetch from Device memory.
    `af_fault_on_cache_ops`, `gpc_on_cache_ops`: DC and IC operations take these faults.
    `effective_shareability_s1`: stage 1 reports the effective shareability under stage 2. `sif_affects_epan`,
    `realm_affects_epan`: SCR_EL3.SIF and the Realm EL2&0 regime count for EPAN. `deviations` lists `DEVIATIONS`.

    >>> Choices().bbm_level, "contiguous-ignored" in PROFILES["qemu-7.2"].deviations
    (0, True)
    """

    nt_block_faults: bool = False
    contig_misprog_faults: bool = False
    bbm_level: int = 0
    txsz_above_max_faults: bool = True
    txsz_below_min_faults: bool = True
    af_update_on_fault: bool = False
    dirty_update_on_fault: bool = False
    device_fetch_faults: bool = False
    af_fault_on_cache_ops: bool = True
    gpc_on_cache_ops: bool = True
    effective_shareability_s1: bool = True
    sif_affects_epan: bool = False
    realm_affects_epan: bool = False
    deviations: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = self.deviations - DEVIATIONS.keys()
        if unknown:
            raise InputError("no such deviation", field="deviations", value=sorted(unknown))


PROFILES = {
    "arm": Choices(),
    "qemu-7.2": Choices(
        bbm_level=2,
        deviations=frozenset(DEVIATIONS) - {"oa-size-unchecked", "s1ptw-is-translation", "block-low-bits-ored"},
    ),
    "unicorn-2.1.4": Choices(
        txsz_above_max_faults=False,
        txsz_below_min_faults=False,
        deviations=frozenset(DEVIATIONS) - {"at-sets-dirty", "ptw-sets-af-first"},
    ),
}


@dataclass(frozen=True, slots=True)
class Features:
    """The implemented features and the physical address size (`pamax`, bits).

    >>> Features.make({"pamax": 48, "FEAT_HAFDBS": 1, "FEAT_LPA2": 0})
    Features(have=frozenset({'FEAT_HAFDBS'}), pamax=48)
    """

    have: frozenset[str] = frozenset()
    pamax: int = 48

    @classmethod
    def make(cls, given: Mapping[str, int | str]) -> Features:
        """From a mapping of `FEAT_...` names (0 or 1) and `pamax`; InputError for unknown names or sizes."""
        have, pamax = set(), 48
        for name, value in given.items():
            if name == "pamax":
                pamax = int(value)
            elif name not in FEATURES:
                raise InputError("no such arm64 feature", field="features", value=name)
            elif int(value):
                have.add(name)
        if pamax not in PA_SIZES:
            sizes = ", ".join(map(str, PA_SIZES))
            raise InputError(f"not a physical address size ({sizes})", field="pamax", value=pamax)
        return cls(frozenset(have), pamax)

    def __contains__(self, name: str) -> bool:
        return name in self.have


QEMU_MAX = Features(
    frozenset({"FEAT_HAFDBS", "FEAT_LPA", "FEAT_LVA", "FEAT_LPA2", "FEAT_TTST", "FEAT_PAN", "FEAT_E0PD", "FEAT_XNX",
               "FEAT_S2FWB", "FEAT_BBM", "FEAT_HPDS", "FEAT_HCX", "FEAT_SEL2", "FEAT_NV"}),
    52,
)  # fmt: skip
UNICORN_MAX = Features(frozenset({"FEAT_PAN", "FEAT_HPDS", "FEAT_NV"}), 44)
