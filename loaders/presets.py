"""Paging modes by name: the registers and processor features that a machine without captured registers starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..arch.arm64.registers import LAYOUTS as ARM64
from ..arch.errors import InputError
from ..arch.x86_64.registers import CR0, CR4, EFER


@dataclass(frozen=True, slots=True)
class Preset:
    """A paging mode: `registers` lack nothing but the roots."""

    name: str
    arch: str
    registers: Mapping[str, int]
    features: Mapping[str, int | str]
    title: str = ""


# name: (TG0, TG1, T0SZ, IPS, DS); encodings: Arm ARM D24.2, TCR_EL1
_ARM64 = {
    "arm64-4k-39": (0, 2, 25, 5, 0),
    "arm64-4k-48": (0, 2, 16, 5, 0),
    "arm64-4k-52": (0, 2, 12, 6, 1),
    "arm64-16k-36": (2, 1, 28, 5, 0),
    "arm64-16k-47": (2, 1, 17, 5, 0),
    "arm64-16k-48": (2, 1, 16, 5, 0),
    "arm64-16k-52": (2, 1, 12, 6, 1),
    "arm64-64k-42": (1, 3, 22, 5, 0),
    "arm64-64k-48": (1, 3, 16, 5, 0),
    "arm64-64k-52": (1, 3, 12, 6, 0),
}
# Linux's MAIR_EL1 from attribute index 0: normal, normal tagged, normal non-cacheable, device nGnRnE, device nGnRE
_MAIR = 0x04_00_44_FF_FF
_NORMAL_WB = 0b01  # IRGN, ORGN
_INNER = 0b11  # SH


def _arm64(name: str, tg0: int, tg1: int, txsz: int, ips: int, ds: int) -> Preset:
    tcr = ARM64["TCR_EL1"].build(
        T0SZ=txsz, T1SZ=txsz, TG0=tg0, TG1=tg1, IPS=ips, DS=ds, HA=1, HD=1,
        IRGN0=_NORMAL_WB, ORGN0=_NORMAL_WB, SH0=_INNER, IRGN1=_NORMAL_WB, ORGN1=_NORMAL_WB, SH1=_INNER,
    )  # fmt: skip
    wide = int(txsz < 16)
    features: dict[str, int | str] = {
        "pamax": 52 if wide else 48, "FEAT_HAFDBS": 1, "FEAT_PAN": 1, "FEAT_HPDS": 1, "FEAT_TTST": 1,
        "FEAT_LPA": wide, "FEAT_LVA": wide, "FEAT_LPA2": ds,
    }  # fmt: skip
    registers = {"TCR_EL1": tcr, "SCTLR_EL1": ARM64["SCTLR_EL1"].build(M=1, C=1, I=1), "MAIR_EL1": _MAIR}
    granule, bits = name.split("-")[1:]
    return Preset(name, "arm64", registers, features, f"{granule.upper()} granule, {bits}-bit virtual addresses")


def _x86_64(levels: int) -> Preset:
    registers = {
        "CR0": CR0.build(PE=1, WP=1, PG=1),
        "CR4": CR4.build(PAE=1, PGE=1, LA57=int(levels == 5), SMEP=1, SMAP=1),
        "EFER": EFER.build(LME=1, LMA=1, NXE=1),
    }
    return Preset(f"x86_64-{levels}level", "x86_64", registers, {"maxphyaddr": 52, "gbpages": 1},
                  f"long mode, {levels} levels")  # fmt: skip


PRESETS: dict[str, Preset] = {
    p.name: p for p in [_x86_64(4), _x86_64(5), *(_arm64(name, *fields) for name, fields in _ARM64.items())]
}
"""Every preset by name: `x86_64-4level`, `x86_64-5level`, `arm64-GRANULE-BITS`."""

DEFAULT_PRESET = {"x86_64": "x86_64-4level", "arm64": "arm64-4k-48"}


def preset(name: str, *, field: str = "preset", file: object = None) -> Preset:
    """The preset of this name; InputError lists them all.

    >>> preset("arm64-4k-52").features["FEAT_LPA2"]
    1
    """
    try:
        return PRESETS[name]
    except KeyError:
        text = f"no such preset (there are: {', '.join(PRESETS)})"
        raise InputError(text, file=file, field=field, value=name) from None


def choose_preset(arch: str | None, name: str | None, file: object) -> Preset:
    """The preset named, or the plainest of `arch`, for a file that holds no registers; InputError where they differ."""
    if arch is None and name is None:
        raise InputError("this file holds no registers: name an architecture or a preset", file=file, field="arch")
    if arch is not None and arch not in DEFAULT_PRESET:
        known = ", ".join(DEFAULT_PRESET)
        raise InputError(f"unknown architecture (there are: {known})", file=file, field="arch", value=arch)
    chosen = preset(name or DEFAULT_PRESET[arch or ""], file=file)
    if arch not in (None, chosen.arch):
        raise InputError(f"the preset is for {chosen.arch}, not {arch}", file=file, field="preset", value=chosen.name)
    return chosen
