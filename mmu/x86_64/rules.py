"""The protection rules of x86 paging as a table: who is forbidden what, and where it is said.

A walk that reached a leaf asks all of them; the first that forbids decides, the others are told as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...arch.layout import Layout
from ...arch.x86_64 import entries
from ...arch.x86_64.faults import PF_ERROR_CODE
from ...arch.x86_64.registers import PKRS, PKRU
from ..walk import AccessKind, Rights
from .access import X86Access
from .regime import X86Regime

RW, US, XD, D = (entries.PTE[name].mask for name in ("RW", "US", "XD", "D"))
SDM = "Intel SDM volume 3A"


@dataclass(frozen=True, slots=True)
class Path:
    """What the entries from the root to a leaf add up to: AND and OR over all of them, AND over the upper ones."""

    all_of: int = ~0
    any_of: int = 0
    upper: int = ~0
    leaf: int = 0
    layout: Layout = entries.PTE

    def down(self, raw: int, layout: Layout) -> Path:
        """The path with one entry more."""
        return Path(self.all_of & raw, self.any_of | raw, self.all_of, raw, layout)

    @property
    def is_user(self) -> bool:
        return bool(self.all_of & US)

    @property
    def is_writable(self) -> bool:
        return bool(self.all_of & RW)

    @property
    def is_shadow_stack(self) -> bool:
        """Read-only and dirty in the leaf, writable in every entry above (Intel SDM volume 3A 5.6.1)."""
        return bool(self.leaf & D and not self.leaf & RW and self.upper & RW)

    @property
    def key(self) -> int:
        return self.layout["PK"].get(self.leaf) if "PK" in self.layout else 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One protection rule; `bit` is the entry's or register's bit to blame.

    `lasting` rules, once an upper entry breaks them, no entry below can satisfy.
    """

    name: str
    text: str
    bit: str
    source: str
    forbids: Callable[[X86Regime, X86Access, Path], bool]
    lasting: bool = False


def _write_counts(regime: X86Regime, access: X86Access) -> bool:
    return access.is_user or "WP" in regime.on


def _key_forbids(regime: X86Regime, access: X86Access, path: Path, register: str) -> bool:
    """PKRU for user pages, PKRS for supervisor pages; write-disable binds a supervisor only with CR0.WP."""
    if access.is_fetch or not regime.is_long:
        return False
    layout = PKRU if register == "PKRU" else PKRS
    value = regime.registers[register]
    denied = layout[f"AD{path.key}"].get(value)
    read_only = layout[f"WD{path.key}"].get(value)
    return bool(denied or (read_only and access.is_write and _write_counts(regime, access)))


def _pkru_forbids(regime: X86Regime, access: X86Access, path: Path) -> bool:
    if "PKE" not in regime.on:
        return False
    if not regime.profile.pkru_by_cpl:
        return path.is_user and _key_forbids(regime, access, path, "PKRU")
    if access.is_user or not access.is_write:  # as Bochs 2.7 has it
        return access.is_user and _key_forbids(regime, access, path, "PKRU")
    read_only = PKRU[f"WD{path.key}"].get(regime.registers["PKRU"])
    return regime.is_long and bool(read_only) and "WP" in regime.on


def _smap_forbids(regime: X86Regime, access: X86Access, path: Path) -> bool:
    if "SMAP" not in regime.on or access.is_fetch or access.is_user or access.shadow_stack or not path.is_user:
        return False
    ignored = access.implicit and (3 if access.user else 0) not in regime.profile.implicit_ac
    return ignored or "AC" not in regime.on


RULES: tuple[Rule, ...] = (
    Rule("U/S", "a user access reaches a supervisor page", "US", f"{SDM} 5.6.1",
         lambda r, a, p: a.is_user and not p.is_user, lasting=True),
    Rule("SS-U/S", "a supervisor shadow-stack access reaches a user page", "US", f"{SDM} 5.6.1",
         lambda r, a, p: a.shadow_stack and not a.is_user and p.is_user),
    Rule("R/W", "a write reaches a read-only page", "RW", f"{SDM} 5.6.1",
         lambda r, a, p: a.is_write and not a.shadow_stack and not p.is_writable and _write_counts(r, a),
         lasting=True),
    Rule("SS", "a shadow-stack access reaches an ordinary page", "RW D", f"{SDM} 5.6.1",
         lambda r, a, p: a.shadow_stack and not p.is_shadow_stack),
    Rule("XD", "an instruction fetch reaches an execute-disable page", "XD", f"{SDM} 5.6.1",
         lambda r, a, p: a.is_fetch and bool(p.any_of & XD), lasting=True),
    Rule("SMEP", "a supervisor fetch reaches a user page", "CR4.SMEP", f"{SDM} 5.6.1",
         lambda r, a, p: a.is_fetch and not a.is_user and p.is_user and "SMEP" in r.on),
    Rule("SMAP", "a supervisor data access reaches a user page", "CR4.SMAP", f"{SDM} 5.6.1", _smap_forbids),
    Rule("PKU", "the protection key of a user page forbids the access", "PKRU", f"{SDM} 5.6.2", _pkru_forbids),
    Rule("PKS", "the protection key of a supervisor page forbids the access", "PKRS", f"{SDM} 5.6.2",
         lambda r, a, p: "PKS" in r.on and not p.is_user and _key_forbids(r, a, p, "PKRS")),
)  # fmt: skip
KEY_RULES = ("PKU", "PKS")


def violations(regime: X86Regime, access: X86Access, path: Path) -> list[Rule]:
    """All rules that forbid the access, in the order in which they are told."""
    return [rule for rule in RULES if rule.forbids(regime, access, path)]


def doomed(regime: X86Regime, access: X86Access, path: Path) -> tuple[str, ...]:
    """What the entries above a bad one already forbid for good, in words."""
    if path.all_of == ~0:
        return ()
    broken = (rule for rule in RULES if rule.lasting and rule.forbids(regime, access, path))
    return tuple(f"{rule.name}: {rule.text}" for rule in broken)


def error_code(
    regime: X86Regime, access: X86Access, *, present: bool, reserved: bool = False, key: bool = False,
    hlat: bool = False,
) -> int:  # fmt: skip
    """The #PF error code (Intel SDM volume 3A 5.7): I/D is reported where XD or SMEP could have been the reason."""
    code = PF_ERROR_CODE.build(
        P=present, WR=access.is_write, US=access.is_user, RSVD=reserved, PK=key, SS=access.shadow_stack, HLAT=hlat
    )
    tells_fetch = "SMEP" in regime.on or ("NXE" in regime.on and regime.mode.entry_size == 8)
    return code | (PF_ERROR_CODE["ID"].mask if access.is_fetch and tells_fetch else 0)


_PLAIN = [(Rights.of(kind, user=user), X86Access(kind, user)) for user in (False, True) for kind in AccessKind]


def rights(regime: X86Regime, path: Path) -> Rights:
    """Which of the six plain accesses this path allows under the present registers."""
    facts = path.is_user, path.is_writable, bool(path.any_of & XD), path.key
    granted = regime.rights_of.get(facts)
    if granted is None:
        granted = Rights(0)
        for right, access in _PLAIN:
            if not any(rule.forbids(regime, access, path) for rule in RULES):
                granted |= right
        regime.rights_of[facts] = granted
    return granted
