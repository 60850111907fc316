"""RME granule protection: the check of a physical address against the granule protection tables (Arm ARM D9)."""

from __future__ import annotations

from typing import NamedTuple

from ...arch.arm64.faults import FaultType
from ...arch.arm64.registers import LAYOUTS
from ...arch.errors import BusError
from ..walk import Step
from .access import PASpace
from .context import (
    GPCF_ADDRESS_SIZE,
    GPCF_EABT,
    GPCF_FAIL,
    GPCF_WALK,
    Abort,
    Context,
    FaultRecord,
    Steps,
)
from .features import PA_SIZES
from .system import SystemState

_GPCCR = LAYOUTS["GPCCR_EL3"]
GRANULE = {0: 12, 2: 14, 1: 16}  # PGS
L0_SIZE = {0: 30, 4: 34, 6: 36, 9: 39}  # L0GPTSZ: log2 of what one level 0 entry covers
BLOCK, CONTIGUOUS, TABLE = 1, 1, 3  # entry types, bits 3:0 (level 0; level 1; level 0)
CONTIGUOUS_SIZE = {1: 21, 2: 25, 3: 29}  # level 1, bits 9:8
GPI_NONE, GPI_SECURE, GPI_NON_SECURE, GPI_ROOT, GPI_REALM, GPI_ANY = 0, 8, 9, 10, 11, 15
GPI_OF = {
    PASpace.Secure: GPI_SECURE,
    PASpace.NonSecure: GPI_NON_SECURE,
    PASpace.Root: GPI_ROOT,
    PASpace.Realm: GPI_REALM,
}
GPI_NAMES = {GPI_NONE: "no access", GPI_ANY: "any", **{gpi: space.name for space, gpi in GPI_OF.items()}}


class GptControls(NamedTuple):
    """GPCCR_EL3 and GPTBR_EL3 decoded; sizes are in bits. `bad` says why the registers are inconsistent."""

    on: bool
    pps: int
    granule: int
    l0_size: int
    base: int
    bad: str


def gpt_controls(system: SystemState) -> GptControls:
    """The granule protection controls (GPCRegistersConsistent, DecodePPS, DecodePGS, GPTL0Size)."""
    value = system.registers.get("GPCCR_EL3", 0)
    fields = {name: f.get(value) for name, f in _GPCCR.items()}
    if not fields["GPC"]:
        return GptControls(False, 0, 12, 30, 0, "")
    pps, granule = PA_SIZES[fields["PPS"]], GRANULE.get(fields["PGS"], 0)
    l0_size = L0_SIZE.get(fields["L0GPTSZ"], 0)
    bad = ""
    if fields["PPS"] == 7 or pps > system.features.pamax:
        bad = "PPS"
    elif not granule:
        bad = "PGS"
    elif fields["SH"] == 1 or (not fields["ORGN"] | fields["IRGN"] and fields["SH"] != 2):
        bad = "SH"
    elif not l0_size:
        bad = "L0GPTSZ"
    base = LAYOUTS["GPTBR_EL3"]["BADDR_51_12"].get(system.registers.get("GPTBR_EL3", 0)) << 12
    return GptControls(True, pps, granule, l0_size, base, bad)


class _Denied(Exception):
    """A granule protection fault: its kind, level and reason."""

    def __init__(self, gpcf: int, level: int, why: str, entry_pa: int | None = None, entry: int | None = None) -> None:
        self.gpcf, self.level, self.why, self.entry_pa, self.entry = gpcf, level, why, entry_pa, entry
        super().__init__(why)


def check(ctx: Context, pa: int, space: PASpace, template: FaultRecord, *, on_walk: bool) -> Steps[None]:
    """Check that `pa` may be reached in `space`; aborts with `template` filled in (GranuleProtectionCheck)."""
    if "FEAT_RME" not in ctx.system.features:
        return
    controls = gpt_controls(ctx.system)
    if not controls.on:
        return
    try:
        yield from _check(ctx, controls, pa, space)
    except _Denied as denied:
        template.fault = FaultType.GPCF_ON_WALK if on_walk else FaultType.GPCF_ON_OUTPUT
        template.gpcf, template.gpcf_level = denied.gpcf, denied.level
        template.gpcf_s2walk = on_walk and template.stage2
        template.pa, template.pa_space = pa, space
        template.rule, template.source = denied.why, "GranuleProtectionCheck"
        template.entry_pa, template.entry = denied.entry_pa, denied.entry
        raise Abort(template) from None


def _check(ctx: Context, controls: GptControls, pa: int, space: PASpace) -> Steps[None]:
    if controls.bad:
        raise _Denied(GPCF_WALK, 0, f"GPCCR_EL3.{controls.bad} is inconsistent")
    if pa >> controls.pps:
        if space is PASpace.NonSecure:
            return
        raise _Denied(GPCF_FAIL, 0, f"{space.name} address beyond the protected {controls.pps} bits")
    if controls.base >> controls.pps:
        raise _Denied(GPCF_ADDRESS_SIZE, 0, "GPTBR_EL3 beyond GPCCR_EL3.PPS")
    gpi, level, entry_pa, entry = yield from _walk(ctx, controls, pa)
    if gpi not in (GPI_ANY, GPI_OF[space]):
        why = f"granule is {GPI_NAMES[gpi]}, the access is {space.name}"
        raise _Denied(GPCF_FAIL, level, why, entry_pa, entry)


def _read(ctx: Context, pa: int, level: int, rule: str) -> Steps[int]:
    try:
        entry = ctx.port.read(pa, 8)
    except BusError:
        raise _Denied(GPCF_EABT, level, "no memory under the granule protection table", pa) from None
    ctx.port.reads += 1
    note, name = gpt_note(entry, level), f"GPT L{level}"
    yield Step(rule=rule, note=note, stage=3, level=level, name=name, pa=pa, raw=entry, source="GPTWalk")
    return entry


def gpt_note(entry: int, level: int) -> str:
    """What a granule protection table entry says, for people.

    >>> gpt_note(0x91, 0), gpt_note(0x4000_0003, 0), gpt_note(0x1b1, 1)
    ('block, NonSecure', 'table', 'contiguous, Realm')
    """
    if level == 0:
        kind = {BLOCK: "block", TABLE: "table"}.get(entry & 15, "invalid")
        return kind if kind != "block" else f"block, {GPI_NAMES.get(entry >> 4 & 15, 'invalid')}"
    if entry & 15 == CONTIGUOUS:
        return f"contiguous, {GPI_NAMES.get(entry >> 4 & 15, 'invalid')}"
    return "granules"


def _valid(ctx: Context, gpi: int) -> bool:
    return gpi in GPI_NAMES and (gpi != GPI_SECURE or "FEAT_SEL2" in ctx.system.features)


def _walk(ctx: Context, controls: GptControls, pa: int) -> Steps[tuple[int, int, int, int]]:
    """The GPI of `pa`, the level it was found at, and the entry (GPTWalk)."""
    align = max(controls.pps - controls.l0_size + 3, 12)
    at = (controls.base >> align << align) + (pa >> controls.l0_size) * 8
    entry = yield from _read(ctx, at, 0, "granule protection level 0")
    if entry & 15 == BLOCK:
        gpi = entry >> 4 & 15
        if entry >> 8 or not _valid(ctx, gpi):
            raise _Denied(GPCF_WALK, 0, "malformed level 0 block entry", at, entry)
        return gpi, 0, at, entry
    low = controls.l0_size - controls.granule - 1
    malformed = entry & (0xFFF0_0000_0000_0FF0 | ((1 << low) - 1 & ~0xFFF))
    if entry & 15 != TABLE or malformed:
        raise _Denied(GPCF_WALK, 0, "malformed level 0 table entry", at, entry)
    table = entry >> 29 - controls.granule << 29 - controls.granule & (1 << 56) - 1
    if table >> controls.pps:
        raise _Denied(GPCF_ADDRESS_SIZE, 0, "level 1 table beyond GPCCR_EL3.PPS", at, entry)
    index = (pa & (1 << controls.l0_size) - 1) >> controls.granule + 4
    at = table + index * 8
    entry = yield from _read(ctx, at, 1, "granule protection level 1")
    if entry & 15 == CONTIGUOUS:
        gpi = entry >> 4 & 15
        if entry >> 10 or not _valid(ctx, gpi) or not entry >> 8 & 3:
            raise _Denied(GPCF_WALK, 1, "malformed contiguous entry", at, entry)
        return gpi, 1, at, entry
    if not all(_valid(ctx, entry >> shift & 15) for shift in range(0, 64, 4)):
        raise _Denied(GPCF_WALK, 1, "granules entry with a reserved nibble", at, entry)
    return entry >> 4 * (pa >> controls.granule & 15) & 15, 1, at, entry
