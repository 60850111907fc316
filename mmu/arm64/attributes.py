"""Memory types and cacheability: MAIR and stage 2 attributes decoded, the stages combined, PAR_EL1 encoded.

(Arm ARM D8.6; shared pseudocode S1DecodeMemAttrs, S2DecodeMemAttrs, S2CombineS1MemAttrs, S2ApplyFWBMemAttrs.)
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Cacheability(IntEnum):
    """Non-cacheable, Write-Through, Write-Back (numbers as in the vector files)."""

    NC, WT, WB = 0, 2, 3


class Cache(NamedTuple):
    """Cacheability of one domain; `hints`: bit 1 read-allocate, bit 0 write-allocate."""

    attrs: Cacheability
    hints: int = 0
    transient: bool = False


class Shareability(IntEnum):
    """Non-shareable, Inner, Outer (numbers as in the vector files)."""

    NSH, ISH, OSH = 0, 1, 2


NOT_CACHED = Cache(Cacheability.NC)
DEVICES = ("nGnRnE", "nGnRE", "nGRE", "GRE")


class MemAttrs(NamedTuple):
    """Memory attributes: `device` is an index into `DEVICES`, -1 for Normal memory. `xs` as in FEAT_XS.

    >>> decode_mair(0xFF, Shareability.ISH).text()
    'Normal WB-RWA inner shareable'
    >>> decode_mair(0x04, Shareability.NSH).effective().text()
    'Device-nGnRE outer shareable'
    """

    device: int
    inner: Cache
    outer: Cache
    shareability: Shareability
    xs: int

    @property
    def uncached(self) -> bool:
        """Device, or Normal Non-cacheable in both domains: the effective shareability is then Outer."""
        return self.device >= 0 or (self.inner.attrs | self.outer.attrs) == Cacheability.NC

    def effective(self) -> MemAttrs:
        """With the effective shareability (EffectiveShareability)."""
        return self._replace(shareability=Shareability.OSH) if self.uncached else self

    def text(self) -> str:
        """For people: type, cacheability of the inner (and, where it differs, outer) domain, shareability."""
        shared = {0: "non-shareable", 1: "inner shareable", 2: "outer shareable"}[self.shareability]
        if self.device >= 0:
            return f"Device-{DEVICES[self.device]} {shared}"
        inner, outer = (_cache_text(cache) for cache in (self.inner, self.outer))
        return f"Normal {inner if inner == outer else f'inner {inner} outer {outer}'} {shared}"


def _cache_text(cache: Cache) -> str:
    if cache.attrs == Cacheability.NC:
        return "NC"
    return f"{cache.attrs.name}-{('NA', 'WA', 'RA', 'RWA')[cache.hints]}{' transient' if cache.transient else ''}"


_FULL = Cache(Cacheability.WB, 3)
NORMAL_NC = MemAttrs(-1, NOT_CACHED, NOT_CACHED, Shareability.OSH, 1)
DEFAULT_CACHEABLE = MemAttrs(-1, _FULL, _FULL, Shareability.NSH, 0)
OFF_DEVICE = MemAttrs(0, NOT_CACHED, NOT_CACHED, Shareability.OSH, 1)
_FETCH_THROUGH = Cache(Cacheability.WT, 2)
OFF_FETCH_CACHED = MemAttrs(-1, _FETCH_THROUGH, _FETCH_THROUGH, Shareability.OSH, 1)

_SHAREABILITY = {0: Shareability.NSH, 2: Shareability.OSH, 3: Shareability.ISH, 1: Shareability.NSH}


def decode_shareability(sh: int) -> Shareability:
    """The SH field; 0b01 is reserved and reads as Non-shareable here (CONSTRAINED UNPREDICTABLE)."""
    return _SHAREABILITY[sh]


def _half(nibble: int) -> Cache:
    if nibble == 0b0100:
        return NOT_CACHED
    hints = nibble & 3
    attrs = Cacheability.WB if nibble & 4 else Cacheability.WT
    return Cache(attrs, hints, bool(hints) and not nibble & 8)


def decode_mair(attr: int, shareability: Shareability) -> MemAttrs:
    """The attributes of one MAIR byte."""
    if attr >> 4 == 0:
        return MemAttrs(attr >> 2 & 3, NOT_CACHED, NOT_CACHED, shareability, ~attr & 1)
    if attr == 0x40:
        return MemAttrs(-1, NOT_CACHED, NOT_CACHED, shareability, 0)
    if attr == 0xA0:
        through = Cache(Cacheability.WT, 2)
        return MemAttrs(-1, through, through, shareability, 0)
    if attr == 0xF0:
        return MemAttrs(-1, _FULL, _FULL, shareability, 0)
    inner, outer = _half(attr & 15), _half(attr >> 4)
    both_back = inner.attrs == outer.attrs == Cacheability.WB
    return MemAttrs(-1, inner, outer, shareability, int(not both_back))


_S2_CACHE = {
    0: NOT_CACHED,  # reserved, CONSTRAINED UNPREDICTABLE: Non-cacheable here
    1: NOT_CACHED,
    2: Cache(Cacheability.WT),
    3: Cache(Cacheability.WB),
}


def decode_stage2(memattr: int, shareability: Shareability, fnxs: int) -> MemAttrs:
    """The attributes of a stage 2 MemAttr field without FEAT_S2FWB."""
    if memattr >> 2 == 0:
        return MemAttrs(memattr & 3, NOT_CACHED, NOT_CACHED, shareability, 1 - fnxs)
    return MemAttrs(-1, _S2_CACHE[memattr & 3], _S2_CACHE[memattr >> 2], shareability, 1 - fnxs)


def _weaker(first: Cache, second: Cache) -> Cache:
    """The weaker of two cacheabilities, with the hints of the first (S2CombineS1AttrHints)."""
    attrs = min(first.attrs, second.attrs)
    return Cache(attrs, first.hints, first.transient) if attrs else NOT_CACHED


def combine(first: MemAttrs, second: MemAttrs) -> MemAttrs:
    """Stage 1 with stage 2 attributes, without FEAT_S2FWB (S2CombineS1MemAttrs)."""
    shareability = max(first.shareability, second.shareability)
    xs = first.xs & second.xs
    if first.device >= 0 or second.device >= 0:
        device = min(attrs.device for attrs in (first, second) if attrs.device >= 0)
        return MemAttrs(device, NOT_CACHED, NOT_CACHED, shareability, xs).effective()
    inner, outer = _weaker(first.inner, second.inner), _weaker(first.outer, second.outer)
    if inner.attrs == outer.attrs == Cacheability.WB:
        xs = 0
    return MemAttrs(-1, inner, outer, shareability, xs).effective()


def combine_by_low_nibble(first: MemAttrs, second: MemAttrs) -> MemAttrs:
    """As `combine`, but a Normal stage takes part in the choice of the Device type with its inner nibble (QEMU)."""
    result = combine(first, second)
    if result.device < 0:
        return result
    full = second._replace(inner=second.inner._replace(hints=3))
    lows = [attrs.device << 2 if attrs.device >= 0 else _par_half(attrs.inner) for attrs in (first, full)]
    return result._replace(device=next((low >> 2 for low in (0, 4, 8) if low in lows), 3))


def _back(cache: Cache, *, normal: bool) -> Cache:
    return Cache(Cacheability.WB, *cache[1:]) if normal and cache.attrs else _FULL


def forced_write_back(first: MemAttrs, memattr: int, shareability: Shareability, fnxs: int) -> MemAttrs:
    """Stage 1 attributes under a stage 2 MemAttr field with HCR_EL2.FWB=1 (S2ApplyFWBMemAttrs)."""
    shareability = max(first.shareability, shareability)
    normal = first.device < 0
    if not memattr & 4:
        device = memattr & 3 if normal else min(first.device, memattr & 3)
        result = MemAttrs(device, NOT_CACHED, NOT_CACHED, shareability, first.xs)
    elif memattr & 3 == 3 or (memattr & 3 != 2 and not normal):
        result = first._replace(shareability=shareability)
    elif memattr & 3 == 2:
        inner, outer = (_back(cache, normal=normal) for cache in (first.inner, first.outer))
        result = MemAttrs(-1, inner, outer, shareability, 0)
    else:
        result = MemAttrs(-1, NOT_CACHED, NOT_CACHED, shareability, first.xs)
    return (result._replace(xs=0) if fnxs else result).effective()


def _par_half(cache: Cache) -> int:
    if cache.attrs == Cacheability.NC:
        return 0b0100
    lasting = 0 if cache.transient else 8
    return lasting | (4 if cache.attrs == Cacheability.WB else 0) | cache.hints


def encode_par(attrs: MemAttrs, *, xs: bool = True) -> int:
    """The ATTR field of PAR_EL1 (EncodePARAttrs); without FEAT_XS (`xs` False) the XS forms do not exist."""
    limited = xs and not attrs.xs
    if attrs.device >= 0:
        return attrs.device << 2 | limited
    if limited:
        if attrs.inner.attrs == attrs.outer.attrs == Cacheability.WT and not attrs.outer.transient:
            if attrs.outer.hints == 2:
                return 0xA0
        elif attrs.inner.attrs == attrs.outer.attrs == Cacheability.NC:
            return 0x40
    return _par_half(attrs.outer) << 4 | _par_half(attrs.inner)


def encode_par_shareability(attrs: MemAttrs) -> int:
    """The SH field of PAR_EL1 (PAREncodeShareability)."""
    return 0b10 if attrs.uncached else {0: 0b00, 1: 0b11, 2: 0b10}[attrs.shareability]
