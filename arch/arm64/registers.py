"""System registers that steer address translation at EL1, EL0 and EL2 and above, bit 0 first (Arm ARM D24)."""

from __future__ import annotations

from construct import Renamed

from ..layout import Layout, address, bit, bits, merge, res0

_D24 = "Arm ARM D24.2"


def _flags(text: str) -> list[Renamed]:
    """Fields from a text: NAME (one bit), NAME:n (n bits), -:n (reserved)."""
    fields = []
    for word in text.split():
        name, _, width = word.partition(":")
        n = int(width or 1)
        fields.append(res0(n) if name == "-" else bit(name) if n == 1 else bits(name, n))
    return fields


def _register(name: str, text: str, title: str) -> Layout:
    return Layout(name, *_flags(text), title=title, source=f"{_D24}, {name}")


def _two_ranges(name: str, title: str) -> Layout:
    fields = """T0SZ:6 - EPD0 IRGN0:2 ORGN0:2 SH0:2 TG0:2 T1SZ:6 A1 EPD1 IRGN1:2 ORGN1:2 SH1:2 TG1:2 IPS:3 - AS
        TBI0 TBI1 HA HD HPD0 HPD1 HWU059 HWU060 HWU061 HWU062 HWU159 HWU160 HWU161 HWU162 TBID0 TBID1 NFD0 NFD1
        E0PD0 E0PD1 TCMA0 TCMA1 DS MTX0 MTX1 -:2"""
    return _register(name, fields, title)


_ONE_RANGE = """T0SZ:6 -:2 IRGN0:2 ORGN0:2 SH0:2 TG0:2 PS:3 - TBI HA HD - HPD HWU59 HWU60 HWU61 HWU62 TBID TCMA - DS
    MTX"""


def _ttbr(name: str) -> list[Layout]:
    plain = Layout(name, bit("CnP"), address("BADDR", 47), bits("ASID", 16), title="translation table base, 48 bits",
                   source=f"{_D24}, {name}")  # fmt: skip
    wide = Layout(f"{name}_52", bit("CnP"), res0(), address("BADDR_51_48", 4), address("BADDR", 42), bits("ASID", 16),
                  title="translation table base, 52-bit form (DS=1, or 64K granule with IPS=6)",
                  source=f"{_D24}, {name}")  # fmt: skip
    d128 = Layout(f"{name}_128", bit("CnP"), bits("SKL", 2), res0(2), address("BADDR", 43), bits("ASID", 16), res0(16),
                  address("BADDR_55_48", 8), res0(40), title="translation table base, 128-bit form (FEAT_D128)",
                  source=f"{_D24}, {name}")  # fmt: skip
    return [plain, wide, d128]


def _nibbles(name: str, title: str) -> Layout:
    return _register(name, " ".join(f"Perm{i}:4" for i in range(16)), title)


def _mair(name: str) -> Layout:
    return _register(name, " ".join(f"Attr{i}:8" for i in range(8)), "memory attribute indirection")


_SCTLR_EL1 = """M A C SA SA0 CP15BEN nAA ITD SED UMA EnRCTX EOS I EnDB DZE UCT nTWI - nTWE WXN TSCXT IESB EIS SPAN E0E
    EE UCI EnDA nTLSMD LSMAOE EnIB EnIA CMOW MSCEn - BT0 BT1 ITFSB TCF0:2 TCF:2 ATA0 ATA DSSBS TWEDEn TWEDEL:4 TMT0 TMT
    TME0 TME EnASR EnAS0 EnALS EPAN TCSO0 TCSO EnTP2 NMI SPINTMASK TIDCP"""
_SCTLR_EL3 = """M A C SA - - nAA - - - - EOS I EnDB - - - - - WXN - IESB EIS - - EE - EnDA - - EnIB EnIA -:4 BT ITFSB
    -:2 TCF:2 - ATA DSSBS -:6 TMT - TME -:5 TCSO - NMI SPINTMASK -"""
_HCR_EL2 = """VM SWIO PTW FMO IMO AMO VF VI VSE FB BSU:2 DC TWI TWE TID0 TID1 TID2 TID3 TSC TIDCP TACR TSW TPCP TPU TTLB
    TVM TGE TDZ HCD TRVM RW CD ID E2H TLOR TERR TEA MIOCNCE TME APK API NV NV1 AT NV2 FWB FIEN GPF TID4 TICAB AMVOFFEN
    TOCU EnSCXT TTLBIS TTLBOS ATA DCT TID5 TWEDEn TWEDEL:4"""
_HCRX_EL2 = """EnAS0 EnALS EnASR FnXS FGTnXS SMPME TALLINT VINMI VFNMI CMOW MCE2 MSCEn -:2 TCR2En SCTLR2En PTTWI D128En
    EnSNERR TMEA EnSDERR EnIDCP128 GCSEn EnFPM PACMEn -:39"""
_SCR_EL3 = """NS IRQ FIQ EA -:3 SMD HCE SIF RW ST TWI TWE TLOR TERR APK API EEL2 EASE NMEA FIEN -:3 EnSCXT ATA FGTEn
    ECVEn TWEDEn TWEDEL:4 TME AMVOFFEN EnAS0 ADEn HXEn GCSEn TRNDR EnTP2 RCWMASKEn TCR2En SCTLR2En PIEn AIEn D128En GPF
    MECEn -:12 NSE -"""

LAYOUTS = merge(
    _two_ranges("TCR_EL1", "translation control, EL1&0"),
    _two_ranges("TCR_EL2_E2H", "translation control, EL2&0 (HCR_EL2.E2H=1)"),
    _register("TCR_EL2", f"{_ONE_RANGE} -:30", "translation control, EL2"),
    _register("TCR_EL3", f"{_ONE_RANGE} PnCH PIE POE AIE D128 -:2 PTTWI HAFT DisCH0 -:20", "translation control, EL3"),
    *_ttbr("TTBR0_EL1"),
    *_ttbr("TTBR1_EL1"),
    *_ttbr("TTBR0_EL2"),
    *_ttbr("TTBR1_EL2"),
    *_ttbr("TTBR0_EL3"),
    _register("SCTLR_EL1", _SCTLR_EL1, "system control, EL1"),
    _register("SCTLR_EL2", _SCTLR_EL1, "system control, EL2"),
    _register("SCTLR_EL3", _SCTLR_EL3, "system control, EL3"),
    *(_mair(f"{name}_EL{el}") for el in (1, 2, 3) for name in ("MAIR", "MAIR2")),
    *(_nibbles(name, "permission indirection") for name in ("PIR_EL1", "PIRE0_EL1", "PIR_EL2", "PIRE0_EL2", "PIR_EL3")),
    *(_nibbles(name, "permission overlay") for name in ("POR_EL0", "POR_EL1", "POR_EL2", "POR_EL3")),
    _nibbles("S2PIR_EL2", "stage 2 permission indirection"),
    _nibbles("S2POR_EL1", "stage 2 permission overlay"),
    _register("HCR_EL2", _HCR_EL2, "hypervisor configuration"),
    _register("HCRX_EL2", _HCRX_EL2, "extended hypervisor configuration"),
    _register("SCR_EL3", _SCR_EL3, "secure configuration"),
    _register(
        "TCR2_EL1",
        "PnCH PIE E0POE POE AIE D128 -:4 PTTWI HAFT -:2 DisCH0 DisCH1 -:48",
        "extended translation control, EL1&0",
    ),
    _register(
        "TCR2_EL2",
        "PnCH PIE E0POE POE AIE D128 -:2 AMEC0 AMEC1 PTTWI HAFT SKL0:2 DisCH0 DisCH1 -:48",
        "extended translation control, EL2",
    ),
    _register(
        "VTCR_EL2",
        """T0SZ:6 SL0:2 IRGN0:2 ORGN0:2 SH0:2 TG0:2 PS:3 VS - HA HD -:2 HWU59 HWU60 HWU61 HWU62 NSW NSA - DS SL2
        AssuredOnly TL1 S2PIE S2POE D128 - GCSH TL0 -:2 HAFT -:19""",
        "stage 2 translation control",
    ),
    _register("VSTCR_EL2", "T0SZ:6 SL0:2 -:6 TG0:2 -:13 SW SA -:2 SL2 -:30", "Secure stage 2 translation control"),
    Layout(
        "VTTBR_EL2",
        bit("CnP"),
        address("BADDR", 47),
        bits("VMID", 16),
        title="stage 2 translation table base",
        source=f"{_D24}, VTTBR_EL2",
    ),
    Layout(
        "VSTTBR_EL2",
        bit("CnP"),
        address("BADDR", 47),
        res0(16),
        title="Secure stage 2 translation table base",
        source=f"{_D24}, VSTTBR_EL2",
    ),
    _register(
        "ID_AA64MMFR0_EL1",
        """PARange:4 ASIDBits:4 BigEnd:4 SNSMem:4 BigEndEL0:4 TGran16:4 TGran64:4 TGran4:4 TGran16_2:4 TGran64_2:4
        TGran4_2:4 ExS:4 -:8 FGT:4 ECV:4""",
        "memory model features 0",
    ),
    _register(
        "ID_AA64MMFR1_EL1",
        """HAFDBS:4 VMIDBits:4 VH:4 HPDS:4 LO:4 PAN:4 SpecSEI:4 XNX:4 TWED:4 ETS:4 HCX:4 AFP:4 nTLBPA:4 TIDCP1:4 CMOW:4
        ECBHB:4""",
        "memory model features 1",
    ),
    _register(
        "ID_AA64MMFR2_EL1",
        "CnP:4 UAO:4 LSM:4 IESB:4 VARange:4 CCIDX:4 NV:4 ST:4 AT:4 IDS:4 FWB:4 -:4 TTL:4 BBM:4 EVT:4 E0PD:4",
        "memory model features 2",
    ),
    _register(
        "ID_AA64MMFR3_EL1",
        """TCRX:4 SCTLRX:4 S1PIE:4 S2PIE:4 S1POE:4 S2POE:4 AIE:4 MEC:4 D128:4 D128_2:4 SNERR:4 ANERR:4 -:4 SDERR:4
        ADERR:4 Spec_FPACC:4""",
        "memory model features 3",
    ),
    _register("ESR_EL1", "ISS:25 IL EC:6 ISS2:24 -:8", "exception syndrome"),
    _register(
        "GPCCR_EL3",
        "PPS:3 -:5 IRGN:2 ORGN:2 SH:2 PGS:2 GPC GPCP -:2 L0GPTSZ:4 -:40",
        "granule protection check control",
    ),
    Layout(
        "GPTBR_EL3",
        address("BADDR_51_12", 40),
        res0(24),
        title="granule protection table base, address >> 12",
        source=f"{_D24}, GPTBR_EL3",
    ),
)

TCR_EL1, TTBR0_EL1, TTBR1_EL1 = LAYOUTS["TCR_EL1"], LAYOUTS["TTBR0_EL1"], LAYOUTS["TTBR1_EL1"]
SCTLR_EL1, MAIR_EL1, ESR_EL1 = LAYOUTS["SCTLR_EL1"], LAYOUTS["MAIR_EL1"], LAYOUTS["ESR_EL1"]
