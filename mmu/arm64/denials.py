"""The permission checks of a leaf, in the architecture's order, each with the control to blame.

Every check that fails is listed, not the first alone: a fault's `also` tells what else would have failed
(Arm ARM D8.4; shared pseudocode S1CheckPermissions, S2CheckPermissions).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..walk import Rights
from . import entries, permissions
from .access import PASpace
from .context import Context
from .params import S1Params, S2Params
from .permissions import Controls, S1Leaf, S2Controls


class Denial(NamedTuple):
    """One failed check: the `bit` to blame, the syndrome `flag` it raises, and FaultRecord.write where it sets that."""

    bit: str
    flag: str = ""
    write: bool | None = None


def controls(ctx: Context, params: S1Params, leaf: S1Leaf, *, el0: bool, fetch: bool, pan: bool) -> Controls:
    """The stage 1 rights at EL0 or at the regime's own level, for a fetch or for data."""
    no_dbm = fetch and "clean-dbm-not-writable-for-fetch" in ctx.system.deviates
    return permissions.stage1(params, leaf, ctx.security, el0=el0, pan=pan, fetch=no_dbm)


def allows(ctx: Context, params: S1Params, leaf: S1Leaf, right: Rights) -> bool:
    """Whether stage 1 alone grants one of the six plain accesses."""
    user, letter = right >= Rights.UR, "rwx"[(right.bit_length() - 1) % 3]
    if user and (params.e0pd or not params.regime.unprivileged):
        return False
    fetch = letter == "x"
    granted = controls(ctx, params, leaf, el0=user, fetch=fetch, pan=ctx.access.pan and not fetch).allows(letter)
    return granted and not (letter == "w" and clean1(params, leaf.raw))


def clean1(params: S1Params, raw: int) -> bool:
    """Whether a write meets a clean stage 1 entry that hardware does not manage (nDirty)."""
    return params.pie and not (params.ha and params.hd) and bool(raw & entries.AP2)


def clean2(params: S2Params, raw: int) -> bool:
    """Whether a write meets a clean stage 2 entry that hardware does not manage."""
    return params.s2pie and not (params.ha and params.hd) and not raw & entries.S2_DIRTY


_ASSURED = entries.field("S2_PAGE_4K", "AssuredOnly", "D128_S2_LEAF", "AssuredOnly")


def assured_only(params: S2Params, raw: int) -> bool:
    """Whether only accesses that stage 1 vouches for may reach this page (FEAT_THE)."""
    return (params.d128 or params.assured_only) and bool(raw >> _ASSURED[params.d128] & 1)


def stage1(ctx: Context, params: S1Params, leaf: S1Leaf, device: bool) -> Iterator[Denial]:
    """What stage 1 denies this access (AArch64_S1CheckPermissions)."""
    el0, fetch = ctx.el == 0, ctx.acctype == "IFETCH"
    rights = controls(ctx, params, leaf, el0=el0, fetch=fetch, pan=ctx.access.honours_pan)
    overlay = f"POR_EL{0 if el0 else params.regime.el}"
    if fetch:
        across = ""  # other address spaces have already taken the right away
        yield from _fetch(ctx, rights, overlay, "AttrIndx", device, across)
    elif ctx.is_cache_op():
        first = next(_maintenance(ctx, rights, overlay), None)
        if first is not None:
            yield first
    else:
        yield from _data(ctx, rights, overlay)
        if ctx.access.traits.write and clean1(params, leaf.raw):
            yield Denial("nDirty", "dirty", True)


def stage2(ctx: Context, params: S2Params, raw: int, space: PASpace, device: bool, assured: bool) -> Iterator[Denial]:
    """What stage 2 denies the access itself (AArch64_S2CheckPermissions)."""
    rights = permissions.stage2(params, raw, el0=ctx.el == 0)
    if assured_only(params, raw) and not assured:
        yield Denial("AssuredOnly", "assured")
    if ctx.acctype == "IFETCH":
        outside = params.security is PASpace.Realm and space is not PASpace.Realm
        yield from _fetch(ctx, rights, "S2POIndex", "MemAttr", device, "NS" if outside else "")
    elif ctx.is_cache_op():
        yield from _maintenance(ctx, rights, "S2POIndex")
    else:
        yield from _data(ctx, rights, "S2POIndex")
        if ctx.access.traits.write and clean2(params, raw):
            yield Denial("dirty", "dirty", True)


def _fetch(
    ctx: Context, rights: Controls | S2Controls, overlay: str, attribute: str, device: bool, outside: str
) -> Iterator[Denial]:
    """An instruction fetch; `outside` names the bit that puts the page outside Realm memory."""
    if rights.overlay and not rights.o_x:
        yield Denial(f"{overlay} (execute)", "overlay")
    if device and ctx.system.choices.device_fetch_faults:
        yield Denial(f"{attribute} (fetch from Device memory)")
    if outside:
        yield Denial(f"{outside} (fetch outside Realm memory)")
    if not rights.x:
        yield Denial(rights.lost.get("x", ""))


def _maintenance(ctx: Context, rights: Controls | S2Controls, overlay: str) -> Iterator[Denial]:
    """Cache maintenance: invalidation needs to write, cleaning at EL0 to read."""
    invalidates = ctx.acctype == "DCI"
    if not invalidates and ctx.el != 0:
        return
    right = "w" if invalidates else "r"
    base, over = (rights.w, rights.o_w) if invalidates else (rights.r, rights.o_r)
    if rights.overlay and not over:
        yield Denial(overlay, "overlay")
    if not base:
        yield Denial(rights.lost.get(right, ""))


def _data(ctx: Context, rights: Controls | S2Controls, overlay: str) -> Iterator[Denial]:
    """Loads and stores; an atomic reads first, so that WnR tells of the write only when the read is allowed."""
    traits = ctx.access.traits
    if traits.read and rights.overlay and not rights.o_r:
        yield Denial(f"{overlay} (read)", "overlay", False)
    if traits.write and rights.overlay and not rights.o_w:
        yield Denial(f"{overlay} (write)", "overlay", True)
    if traits.read and not rights.r:
        yield Denial(rights.lost.get("r", ""), "", False)
    if traits.write and not rights.w:
        yield Denial(rights.lost.get("w", ""), "", True)


def stage2_walk(
    ctx: Context, params: S2Params, raw: int, space: PASpace, device: bool, *, update: bool, top: bool, upper: int
) -> Iterator[Denial]:
    """What stage 2 denies an access to a stage 1 table (AArch64_S2CheckPermissions, AccessType_TTW)."""
    rights = permissions.stage2(params, raw, el0=ctx.el == 0)
    top0, top1 = rights.top
    if top:
        own, other = (params.tl1, params.tl0) if upper else (params.tl0, params.tl1)
        has, others = (top1, top0) if upper else (top0, top1)
        if (own and not has) or (other and others and not has):
            yield Denial("VTCR_EL2.TL1" if upper else "VTCR_EL2.TL0", "toplevel")
    if params.ptw and device:
        yield Denial("HCR_EL2.PTW (Device)")
    if rights.overlay and not rights.o_r:
        yield Denial("S2POIndex (read)", "overlay")
    if rights.overlay and update and not rights.o_w_mmu:
        yield Denial("S2POIndex (write)", "overlay")
    if params.security is PASpace.Realm and space is not PASpace.Realm:
        yield Denial("NS (a Realm table outside Realm memory)")
    if not rights.r_mmu:
        yield Denial(rights.lost.get("r", ""))
    if update and not rights.w_mmu:
        yield Denial(rights.lost.get("w", ""))
    if update and clean2(params, raw):
        yield Denial("dirty", "dirty")
