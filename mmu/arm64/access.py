"""One arm64 access: what is done, at which Exception level, and the process state that matters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

from ..walk import Access, AccessKind


class _Traits(NamedTuple):
    acctype: str  # GPR, IFETCH, AT, DCZero, DC (the manual's AccessType)
    read: bool
    write: bool
    kind: AccessKind


class Operation(Enum):
    """What the access does (AccessDescriptor of the Arm ARM's shared pseudocode)."""

    READ = _Traits("GPR", True, False, AccessKind.READ)
    WRITE = _Traits("GPR", False, True, AccessKind.WRITE)
    FETCH = _Traits("IFETCH", True, False, AccessKind.EXECUTE)
    AT_READ = _Traits("AT", True, False, AccessKind.READ)
    AT_WRITE = _Traits("AT", False, True, AccessKind.WRITE)
    ATOMIC = _Traits("ATOMIC", True, True, AccessKind.WRITE)
    DC_ZVA = _Traits("DCZero", False, True, AccessKind.WRITE)
    DC_CLEAN = _Traits("DC", False, False, AccessKind.READ)
    EXCLUSIVE_READ = _Traits("EX", True, False, AccessKind.READ)
    DC_INVALIDATE = _Traits("DCI", False, False, AccessKind.WRITE)

    @property
    def traits(self) -> _Traits:
        return self.value


_PLAIN = {
    AccessKind.READ: Operation.READ,
    AccessKind.WRITE: Operation.WRITE,
    AccessKind.EXECUTE: Operation.FETCH,
}


class PASpace(IntEnum):
    """The physical address spaces (numbers as in the vector files)."""

    NonSecure, Secure, Root, Realm = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Arm64Access(Access):
    """An access with all that arm64 looks at.

    `el` is the Exception level of the access (0 for LDTR and STTR too); -1 takes it from `user`.
    `stage1_only` is for AT S1E*, which stops before stage 2. `non_fault` is an SVE load that reports no fault (or a
    first-fault load beyond its first element), which TCR_ELx.NFDn refuses at EL0. `pan` is PSTATE.PAN; `at_pan` marks
    AT S1E1RP and S1E1WP, the forms that look at it. `aligned` is False for an unaligned address. `operation`
    overrides `kind`.

    >>> Arm64Access(user=True).level, Arm64Access.at("S1E1W").operation.name
    (0, 'AT_WRITE')
    """

    el: int = -1
    operation: Operation | None = None
    pan: bool = False
    at_pan: bool = False
    aligned: bool = True
    stage1_only: bool = False
    non_fault: bool = False

    @property
    def level(self) -> int:
        """The Exception level of the access."""
        return self.el if self.el >= 0 else 0 if self.user else 1

    @property
    def traits(self) -> _Traits:
        return (self.operation or _PLAIN[self.kind]).traits

    @property
    def honours_pan(self) -> bool:
        """Whether PSTATE.PAN takes part in the check of this access."""
        acctype = self.traits.acctype
        if acctype == "AT":
            return self.pan and self.at_pan
        return self.pan and acctype not in ("IFETCH", "DC", "DCI")

    @classmethod
    def of(cls, access: Access | None) -> Arm64Access:
        """The arm64 form of a plain access (EL1 for the kernel, EL0 for the user); a read at EL1 for None."""
        if isinstance(access, cls):
            return access
        return cls() if access is None else cls(access.kind, access.user)

    @classmethod
    def unprivileged(cls, kind: AccessKind, *, uao: bool = False, pan: bool = False) -> Arm64Access:
        """LDTR or STTR at EL1: made as if at EL0, unless PSTATE.UAO is set.

        >>> Arm64Access.unprivileged(AccessKind.WRITE).level, Arm64Access.unprivileged(AccessKind.WRITE, uao=True).level
        (0, 1)
        """
        return cls(kind, not uao, 1 if uao else 0, pan=pan)

    @classmethod
    def at(cls, form: str, *, pan: bool = False) -> Arm64Access:
        """The access an AT instruction asks about: S1E1R, S1E0W, S12E1R, S1E1WP, S1E2R ...; KeyError: no such form."""
        level, rest = form[form.index("E") + 1], form[form.index("E") + 2 :]
        operation = {"R": Operation.AT_READ, "W": Operation.AT_WRITE}[rest[0]]
        kind = operation.traits.kind
        first = form.startswith("S1E")
        return cls(kind, level == "0", int(level), operation, pan, rest.endswith("P"), stage1_only=first)
