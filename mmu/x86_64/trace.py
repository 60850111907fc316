"""Every memory access that a walk makes, in order: entries read, the final access, entries written back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..walk import Outcome, Step, Translation


@dataclass(frozen=True, slots=True)
class MemoryAccess:
    """`what` is `read` (a table entry), `access` (the final one) or `update` (accessed and dirty bits)."""

    what: str
    pa: int
    stage: int | None = None
    level: int | None = None
    value: int | None = None

    def __str__(self) -> str:
        where = "" if self.stage is None else f" stage {self.stage} level {self.level}"
        return f"{self.what}{where} at {self.pa:#018x}" + ("" if self.value is None else f" = {self.value:#018x}")


def memory_accesses(steps: Iterable[Step], end: Outcome) -> list[MemoryAccess]:
    """The accesses of a finished walk (see `walk.finish`).

    >>> from ..memory import WordMemory
    >>> from ..walk import finish
    >>> from .regime import X86Regime
    >>> ram = WordMemory({0x1000: 0x2003, 0x2000: 0x83})
    >>> walk = X86Regime.from_registers({"CR3": 0x1000}, {}).walk(ram, 0x5678)
    >>> for access in memory_accesses(*finish(walk))[:4]:
    ...     print(access)
    read stage 1 level 4 at 0x0000000000001000 = 0x0000000000002003
    read stage 1 level 3 at 0x0000000000002000 = 0x0000000000000083
    access at 0x0000000000005678
    update at 0x0000000000001000 = 0x0000000000002023
    """
    made = [MemoryAccess("read", s.pa, s.stage, s.level, s.raw) for s in steps if s.pa is not None]
    if isinstance(end, Translation):
        made.append(MemoryAccess("access", end.pa))
    return made + [MemoryAccess("update", pa, value=new) for pa, _, new in end.updates]
