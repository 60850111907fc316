"""One x86 access: its kind, and what else decides whether it is allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..walk import Access, AccessKind


@dataclass(frozen=True, slots=True)
class X86Access(Access):
    """An access as Intel SDM volume 3A 5.6.1 sorts them.

    `implicit` accesses are supervisor accesses whatever the CPL (descriptor tables, TSS); `user` is then the CPL's
    side. `shadow_stack` accesses are those of CET; WRUSS is a user shadow-stack access made at CPL 0 (`user` True).
    `rmw` marks a locked read-modify-write, one write access for the architecture. `stack` references raise #SS, not
    #GP, where the address is not canonical.

    >>> X86Access(AccessKind.READ, user=True, implicit=True).is_user
    False
    """

    implicit: bool = False
    shadow_stack: bool = False
    stack: bool = False
    rmw: bool = False

    @classmethod
    def of(cls, access: Access | None) -> X86Access:
        """`access` itself, or the plain access it describes."""
        if isinstance(access, X86Access):
            return access
        return cls() if access is None else cls(access.kind, access.user)

    @property
    def is_user(self) -> bool:
        return self.user and not self.implicit

    @property
    def is_write(self) -> bool:
        return self.kind is AccessKind.WRITE

    @property
    def is_fetch(self) -> bool:
        return self.kind is AccessKind.EXECUTE

    @property
    def load_half(self) -> X86Access:
        """The load of a read-modify-write that is done as a load and a store."""
        return replace(self, kind=AccessKind.READ, rmw=False)
