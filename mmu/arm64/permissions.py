"""Who may do what: direct, indirect and overlay permissions of both stages.

Each function answers for one Exception level with a triple of booleans (read, write, execute) and, for explanations,
names the control that took each right away (Arm ARM D8.4; shared pseudocode S1DirectBasePermissions,
S1IndirectBasePermissions, S1OverlayPermissions, S1ComputePermissions and their stage 2 counterparts).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...arch.arm64.descriptors import LAYOUTS
from .access import PASpace
from .entries import AP1, AP2, DBM, PXN, UXN
from .params import S1Params, S2Params

_PAGE, _D128 = LAYOUTS["PAGE_4K"], LAYOUTS["D128_LEAF"]
_S2, _D128_S2 = LAYOUTS["S2_PAGE_4K"], LAYOUTS["D128_S2_LEAF"]
_TABLE = LAYOUTS["TABLE_4K"]
PXN_TABLE, UXN_TABLE = _TABLE.mask("PXNTable"), _TABLE.mask("UXNTable")
APTABLE_EL0, APTABLE_RO = 0b01 << _TABLE["APTable"].shift, 0b10 << _TABLE["APTable"].shift
TABLE_BITS = PXN_TABLE | UXN_TABLE | APTABLE_EL0 | APTABLE_RO

# permission indirection, 4-bit code: read, write, execute, guarded control stack (S1IndirectBasePermissions)
_NONE = (False, False, False, False)
INDIRECT = (
    _NONE,
    (True, False, False, False),
    (False, False, True, False),
    (True, False, True, False),
    _NONE,
    (True, True, False, False),
    (True, True, True, False),
    (True, True, True, False),
    (True, False, False, False),
    (True, False, False, True),
    (True, False, True, False),
    _NONE,
    (True, True, False, False),
    _NONE,
    (True, True, True, False),
    _NONE,
)
INDIRECT_WXN = 0b0110

# permission overlay: bit 0 read, bit 1 execute, bit 2 write; 8 and above give nothing (S1OverlayPermissions)
# stage 2: read, write, EL1 execute, EL0 execute, write by RCW and MMU (S2IndirectBasePermissions)
STAGE2 = (
    (False, False, False, False, False),
    (False, False, False, False, False),
    (True, False, False, False, True),  # MRO
    (True, False, False, False, True),  # MRO-TL1
    (False, True, False, False, False),  # WO
    (False, False, False, False, False),
    (True, False, False, False, True),  # MRO-TL0
    (True, False, False, False, True),  # MRO-TL01
    (True, False, False, False, False),
    (True, False, False, True, False),
    (True, False, True, False, False),
    (True, False, True, True, False),
    (True, True, False, False, True),
    (True, True, False, True, True),
    (True, True, True, False, True),
    (True, True, True, True, True),
)
TOP_LEVEL = {0b0110: (True, False), 0b0011: (False, True), 0b0111: (True, True)}


@dataclass(slots=True)
class Controls:
    """What one Exception level may do: base rights, overlay rights, and why a right is missing.

    `overlay` says whether the overlay takes part. `lost` maps 'r', 'w', 'x' to the control that took it away.
    """

    r: bool
    w: bool
    x: bool
    overlay: bool = False
    o_r: bool = False
    o_w: bool = False
    o_x: bool = False
    lost: dict[str, str] = field(default_factory=dict)

    def allows(self, right: str) -> bool:
        """Whether a plain access of this kind ('r', 'w' or 'x') passes."""
        base, over = {"r": (self.r, self.o_r), "w": (self.w, self.o_w), "x": (self.x, self.o_x)}[right]
        return base and (over or not self.overlay)


@dataclass(slots=True)
class S1Leaf:
    """The permission fields of a stage 1 leaf and of the tables above it.

    `tables` is the OR of APTable, UXNTable and PXNTable, at their places in a table descriptor; `blame` tells at which
    level each of them was set first.
    """

    raw: int
    space: PASpace
    tables: int = 0
    blame: dict[int, int] = field(default_factory=dict)


def indirection_index(raw: int, d128: bool) -> int:
    """PIIndex: a field of 128-bit descriptors; UXN, PXN, DBM and AP[1] of 64-bit ones."""
    if d128:
        return _D128["PIIndex"].get(raw)
    return (raw >> _PAGE["PXN"].shift & 3) << 2 | bool(raw & DBM) << 1 | bool(raw & AP1)


def overlay_index(raw: int, d128: bool) -> int:
    """POIndex of a stage 1 leaf."""
    return (_D128 if d128 else _PAGE)["POIndex"].get(raw)


def stage1(params: S1Params, leaf: S1Leaf, security: PASpace, *, el0: bool, pan: bool, fetch: bool) -> Controls:
    """The stage 1 rights at EL0, or at the regime's own level (S1ComputePermissions).

    `pan` says whether PSTATE.PAN is set and looked at; a fetch never looks at it. `fetch` is for the deviation that
    does not count a clean DBM page as writable.
    """
    base, wxn, allow_overlay = (_indirect if params.pie else _direct)(params, leaf, security, el0, pan, fetch)
    base.overlay = allow_overlay and (params.e0poe if el0 else params.poe)
    if base.overlay:
        nibble = (params.por_el0 if el0 else params.por) >> 4 * overlay_index(leaf.raw, params.d128) & 15
        if nibble < 8:
            base.o_r, base.o_x, base.o_w = bool(nibble & 1), bool(nibble & 2), bool(nibble & 4)
    if wxn:
        name = "PIR_ELx (WXN code)" if params.pie else f"SCTLR_EL{params.regime.el}.WXN"
        if base.overlay and base.o_x:
            base.o_w = False
        else:
            base.x = False
            base.lost.setdefault("x", name)
    return base


def _at(leaf: S1Leaf, bit: int, name: str) -> str:
    return f"{name} at level {leaf.blame[bit]}" if bit in leaf.blame else name


def _direct(
    params: S1Params, leaf: S1Leaf, security: PASpace, el0: bool, pan: bool, fetch: bool
) -> tuple[Controls, bool, bool]:
    """AP, UXN and PXN with the hierarchical controls, PAN and WXN (S1DirectBasePermissions)."""
    raw, tables, lost = leaf.raw, leaf.tables, dict[str, str]()
    dirty_managed = params.ha and params.hd and bool(raw & DBM) and not fetch
    read_only = bool(raw & AP2) and not dirty_managed
    write = not (read_only or tables & APTABLE_RO)
    if not write:
        lost["w"] = "AP[2]" if read_only else _at(leaf, APTABLE_RO, "APTable[1]")
    if not params.regime.unprivileged:
        execute = not (raw & UXN or tables & UXN_TABLE)
        if not execute:
            lost["x"] = "XN" if raw & UXN else _at(leaf, UXN_TABLE, "XNTable")
        controls = Controls(True, write, execute, lost=lost)
    else:
        controls = _two_levels(params, leaf, write, lost, security, el0, pan)
    wxn = params.wxn and controls.w and controls.x
    _fetch_across_spaces(params, leaf, security, controls)
    return controls, wxn, True


def _two_levels(
    params: S1Params, leaf: S1Leaf, write: bool, lost: dict[str, str], security: PASpace, el0: bool, pan: bool
) -> Controls:
    """The part of the direct permissions that distinguishes EL0 from the level above."""
    raw, tables = leaf.raw, leaf.tables
    user = bool(raw & AP1) and not params.nv1 and not tables & APTABLE_EL0
    if params.nv1:
        pxn, uxn, pxn_table, uxn_table = raw & UXN, 0, tables & UXN_TABLE, 0
        user = False
    else:
        pxn, uxn, pxn_table, uxn_table = raw & PXN, raw & UXN, tables & PXN_TABLE, tables & UXN_TABLE
    user_write, user_execute = user and write, not (uxn or uxn_table)
    if el0:
        if not user:
            lost["r"] = lost["w"] = "AP[1]" if not raw & AP1 else _at(leaf, APTABLE_EL0, "APTable[0]")
        if not user_execute:
            lost["x"] = "UXN" if uxn else _at(leaf, UXN_TABLE, "UXNTable")
        return Controls(user, user_write, user_execute, lost=lost)
    execute = not (pxn or pxn_table or user_write)
    if not execute:
        lost["x"] = "PXN" if pxn else _at(leaf, PXN_TABLE, "PXNTable") if pxn_table else "AP[1] (writable at EL0)"
    read = True
    by_execute = params.epan and user_execute and not _epan_exempt(params, leaf, security)
    if pan and not params.nv1 and (user or by_execute):
        read = write = False
        lost["r"] = lost["w"] = "PSTATE.PAN"
    return Controls(read, write, execute, lost=lost)


def _epan_exempt(params: S1Params, leaf: S1Leaf, security: PASpace) -> bool:
    """Whether an EL0-executable page does not count for EPAN, being unreachable for fetches anyway."""
    if params.sif_affects_epan and params.sif and security is PASpace.Secure and leaf.space is PASpace.NonSecure:
        return True
    crossing = security is PASpace.Realm and params.regime.el == 2 and leaf.space is not PASpace.Realm
    return params.realm_affects_epan and crossing


def _fetch_across_spaces(params: S1Params, leaf: S1Leaf, security: PASpace, controls: Controls) -> None:
    """Instruction fetch from another physical address space (SIF, Root, Realm)."""
    why = ""
    if security is PASpace.Secure and leaf.space is PASpace.NonSecure and params.sif:
        why = "SCR_EL3.SIF"
    elif security is PASpace.Root and leaf.space is not PASpace.Root:
        why = "not Root memory"
    elif security is PASpace.Realm and params.regime.el == 2 and leaf.space is not PASpace.Realm:
        why = "not Realm memory"
    if why:
        controls.x = False
        controls.lost.setdefault("x", why)


def _indirect(
    params: S1Params, leaf: S1Leaf, security: PASpace, el0: bool, pan: bool, fetch: bool
) -> tuple[Controls, bool, bool]:
    """PIR_ELx and PIRE0_ELx (S1IndirectBasePermissions)."""
    index = 4 * indirection_index(leaf.raw, params.d128)
    privileged, user = params.pir >> index & 15, params.pire0 >> index & 15
    p_read, p_write, p_execute, p_gcs = INDIRECT[privileged]
    register, lost = f"PIR_EL{params.regime.el}", dict[str, str]()
    code, read, write, execute = privileged, p_read, p_write, p_execute
    if params.regime.unprivileged:
        u_read, u_write, u_execute, u_gcs = INDIRECT[user]
        if el0:
            register, code, read, write, execute = f"PIRE0_EL{params.regime.el}", user, u_read, u_write, u_execute
        if (p_execute or p_gcs) and (u_write or u_gcs):
            read = write = execute = False
            lost = dict.fromkeys("rwx", "PIR_ELx execute with PIRE0_ELx write")
        if pan and not params.nv1 and user and not el0:
            read = write = False
            lost |= dict.fromkeys("rw", "PSTATE.PAN")
    for right, allowed in zip("rwx", (read, write, execute), strict=True):
        if not allowed:
            lost.setdefault(right, f"{register}.Perm{index // 4}={code:#x}")
    controls = Controls(read, write, execute, lost=lost)
    _fetch_across_spaces(params, leaf, security, controls)
    return controls, code == INDIRECT_WXN, code < 8


@dataclass(slots=True)
class S2Controls:
    """What stage 2 grants one Exception level, and what it grants table walks (`_mmu`)."""

    r: bool
    w: bool
    x: bool
    r_mmu: bool
    w_mmu: bool
    overlay: bool = False
    o_r: bool = False
    o_w: bool = False
    o_x: bool = False
    o_w_mmu: bool = False
    top: tuple[bool, bool] = (False, False)
    mostly_read_only: bool = False
    lost: dict[str, str] = field(default_factory=dict)

    def allows(self, right: str) -> bool:
        """Whether a plain access of this kind ('r', 'w' or 'x') passes."""
        base, over = {"r": (self.r, self.o_r), "w": (self.w, self.o_w), "x": (self.x, self.o_x)}[right]
        return base and (over or not self.overlay)


def stage2(params: S2Params, raw: int, *, el0: bool) -> S2Controls:
    """The stage 2 rights (S2ComputePermissions)."""
    if not params.s2pie:
        return _stage2_direct(params, raw, el0)
    index = _D128_S2["PIIndex"].get(raw) if params.d128 else indirection_index(raw, False)
    code = params.s2pir >> 4 * index & 15
    read, write, el1_x, el0_x, mmu = STAGE2[code]
    controls = S2Controls(read, write, el0_x if el0 else el1_x, read, mmu)
    for right, allowed in zip("rwx", (controls.r, controls.w, controls.x), strict=True):
        if not allowed:
            controls.lost[right] = f"S2PIR_EL2.Perm{index}={code:#x}"
    controls.top = TOP_LEVEL.get(code, (False, False))
    controls.mostly_read_only = not write and mmu
    if params.s2poe:
        _stage2_overlay(params, raw, el0, controls, write, mmu)
    return controls


def _stage2_overlay(params: S2Params, raw: int, el0: bool, controls: S2Controls, write: bool, mmu: bool) -> None:
    index = (_D128_S2 if params.d128 else _S2)["S2POIndex"].get(raw)
    code = params.s2por >> 4 * index & 15
    controls.overlay = True
    controls.o_r, controls.o_w, el1_x, el0_x, controls.o_w_mmu = STAGE2[code]
    controls.o_x = el0_x if el0 else el1_x
    controls.mostly_read_only = not (write and controls.o_w) and mmu and controls.o_w_mmu
    if controls.mostly_read_only:
        overlaid = TOP_LEVEL.get(code, (False, False))
        controls.top = (controls.top[0] or overlaid[0], controls.top[1] or overlaid[1])
    else:
        controls.top = (False, False)


def _stage2_direct(params: S2Params, raw: int, el0: bool) -> S2Controls:
    """S2AP and XN (S2DirectBasePermissions)."""
    read = bool(raw & AP1)
    write = bool(raw & AP2) or bool(params.ha and params.hd and raw & DBM)
    code = _S2["XN"].get(raw) & (3 if params.xnx else 2)
    execute = code in (0b00, 0b01) if el0 else code in (0b00, 0b11)
    lost = {"r": "S2AP[0]", "w": "S2AP[1]", "x": "XN"}
    return S2Controls(read, write, execute, read, write, lost=lost)
