"""What every walk speaks of: the access asked for, the steps taken, and the translation or the fault at the end.

A walker is a generator: it yields one `Step` per table entry it reads (and per rule that decides without reading) and
returns a `Translation` or a `Fault`. `finish` runs it to its end.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntFlag

from ..arch.layout import Layout


class AccessKind(Enum):
    """What an access does."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"


@dataclass(frozen=True, slots=True)
class Access:
    """One access; each architecture's walker knows a subclass with what else matters there.

    >>> Access(AccessKind.WRITE, user=True).right
    <Rights.UW: 16>
    """

    kind: AccessKind = AccessKind.READ
    user: bool = False

    @property
    def right(self) -> Rights:
        """The right of the plain access of this kind."""
        return Rights.of(self.kind, user=self.user)


class Rights(IntFlag):
    """The six plain accesses; a translation carries those that would succeed with the present registers.

    >>> (Rights.KR | Rights.KW | Rights.UR).text()
    'kernel rw-, user r--'
    """

    KR, KW, KX = 1, 2, 4
    UR, UW, UX = 8, 16, 32

    def text(self) -> str:
        """`kernel rwx, user r--`."""
        letters = ["".join(c if self & (1 << i + j) else "-" for j, c in enumerate("rwx")) for i in (0, 3)]
        return f"kernel {letters[0]}, user {letters[1]}"

    @classmethod
    def of(cls, kind: AccessKind, *, user: bool) -> Rights:
        """The right that a plain access needs."""
        return cls(1 << list(AccessKind).index(kind) + (3 if user else 0))


ALL_RIGHTS = Rights(63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One entry read, or one check made, by a walk.

    `stage` is 1 (the first or only stage), 2 (second stage: EPT, NPT, arm64 stage 2) or 3 (granule protection table).
    `level` is the manual's number: x86 5 (PML5) to 1 (PT), arm64 -1 to 3. `pa` is the address of the entry and
    `raw` its value, both None for a step that reads nothing. `kind` is the layout that decodes `raw`.
    `rights` is what the entries so far grant. `rule` names the rule that decided, with the manual's section in
    `source`; `note` says in words what the entry does (`table`, `leaf`, why it faults ...).
    """

    rule: str
    note: str
    stage: int = 1
    level: int | None = None
    name: str = ""
    linux_name: str = ""
    pa: int | None = None
    raw: int | None = None
    kind: Layout | None = None
    rights: Rights = ALL_RIGHTS
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A successful walk: `va` goes to `pa`, inside a page of `1 << page_shift` bytes mapped at `level`.

    `rights` says which of the six plain accesses succeed with the present registers. `entry_pa` and `entry` are the
    leaf (None where translation is off). `updates` are the words that the walk wrote back (accessed and dirty bits)
    as (address, old, new). `attributes` holds what else the architecture tells (memory type, global, key ...).
    """

    va: int
    pa: int
    level: int | None
    page_shift: int
    rights: Rights
    entry_pa: int | None = None
    entry: int | None = None
    updates: tuple[tuple[int, int, int], ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A walk that ended in a fault.

    `name` is the architecture's (`#PF`, `#GP`, `Translation fault` ...) and `code` its code: the #PF error code on
    x86, the fault status code (FSC) on arm64. `syndrome` holds the other register values (CR2; ISS, FAR, HPFAR ...).
    `level`, `entry_pa`, `entry` and `bit` say which bit of which entry or register is to blame, `rule` and `source` by
    which rule; `also` lists the rules that would have failed next, had this one passed.
    """

    va: int
    name: str
    code: int
    rule: str
    stage: int = 1
    level: int | None = None
    entry_pa: int | None = None
    entry: int | None = None
    bit: str = ""
    source: str = ""
    also: tuple[str, ...] = ()
    syndrome: Mapping[str, int] = field(default_factory=dict)
    updates: tuple[tuple[int, int, int], ...] = ()


Outcome = Translation | Fault
Walk = Generator[Step, None, Outcome]


def finish(walk: Walk) -> tuple[list[Step], Outcome]:
    """Run a walk to its end: its steps, and the translation or the fault."""
    steps: list[Step] = []
    while True:
        try:
            steps.append(next(walk))
        except StopIteration as end:
            return steps, end.value


def outcome(walk: Walk) -> Outcome:
    """Run a walk to its end and keep only the translation or the fault."""
    return finish(walk)[1]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a table tree: its number and names, the lowest address bit it resolves, and its index width.

    `entries` is the number of entries of one table; `leaf` is True where an entry may map memory itself.
    """

    number: int
    name: str
    linux_name: str
    shift: int
    index_bits: int
    leaf: bool

    @property
    def entries(self) -> int:
        return 1 << self.index_bits

    def index(self, va: int) -> int:
        """The index of `va` in a table of this level."""
        return va >> self.shift & self.entries - 1
