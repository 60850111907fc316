"""Intel's extended page tables as second stage (Intel SDM volume 3C 30.3): permissions, misconfiguration, A and D, #VE.

No emulator at hand models all of this: the rules stand on the manual alone, each with its section.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ...arch.errors import RegisterError
from ...arch.layout import RES0, Layout
from ...arch.x86_64 import ept as entries
from ...arch.x86_64.ept import EPT_QUALIFICATION, SPP_QUALIFICATION, SPPT_ENTRY
from ...arch.x86_64.registers import EPTP, MEMORY_TYPES
from ..memory import Memory
from ..regime import Entry, Tree
from ..walk import Access, Fault, Level, Step, Walk
from . import rules
from .access import X86Access
from .regime import X86Regime
from .rules import Path
from .walk import Reached, Request, walk
from .words import Words

SDM = "Intel SDM volume 3C"
_LEAF = entries.EPT_PTE
R, W, X, XU, A, D = (_LEAF[name].mask for name in ("R", "W", "X", "XU", "A", "D"))
_PS, _PW, _VGP, _SSS, _SPP, _SVE = (
    entries.EPT_PDE["PS"].mask, *(_LEAF[name].mask for name in ("PW", "VGP", "SSS", "SPP", "SVE")),
)  # fmt: skip
_TABLES = {5: entries.EPT_PML5E, 4: entries.EPT_PML4E, 3: entries.EPT_PDPTE, 2: entries.EPT_PDE}
_LEAVES = {3: entries.EPT_PDPTE_1G, 2: entries.EPT_PDE_2M, 1: entries.EPT_PTE}
_ODD_BITS = 0xAAAA_AAAA_AAAA_AAAA  # of a vector of sub-page permissions: reserved
_SWITCHES = ("execute_only", "mbec", "paging_write", "guest_paging_verification", "spp", "ve", "advanced")


@dataclass(frozen=True, slots=True, kw_only=True)
class EptFault(Fault):
    """An EPT violation (`code` is the exit qualification), an EPT misconfiguration, an SPP event or a #VE.

    `guest_level` is the level of the guest's leaf if its walk had reached one. `allowed` are the qualifications that
    the manual permits, `code` first.
    """

    guest_level: int | None = None
    causes: tuple[str, ...] = ()
    allowed: tuple[int, ...] = ()


@dataclass(slots=True)
class _Found:
    """The nested walk so far: entries used, the AND of all and of the tables, the last entry."""

    used: list[int] = field(default_factory=list)
    every: int = ~0
    tables: int = ~0
    level: Level | None = None
    pa: int = 0
    raw: int = 0
    is_leaf: bool = False


@dataclass(frozen=True)
class Ept:
    """Extended page tables and the VM-execution controls that decide.

    `eptp` holds memory type, depth, the A/D switch and supervisor-shadow-stack control. `execute_only` is capability
    bit 0; `mbec` mode-based execute control; `paging_write`, `guest_paging_verification`, `spp` (with `sppt`, the root
    of the sub-page tables) and `ve` (EPT violations become #VE unless suppressed) are controls; `advanced` says that
    the qualification tells of the guest's page.

    >>> Ept(0x1000 | 0x1e, maxphyaddr=46).levels[0].name
    'EPT PML4E'
    """

    eptp: int
    maxphyaddr: int = 52
    execute_only: bool = True
    mbec: bool = False
    paging_write: bool = False
    guest_paging_verification: bool = False
    spp: bool = False
    sppt: int = 0
    ve: bool = False
    advanced: bool = True
    gbpages: bool = True

    def __post_init__(self) -> None:
        if EPTP["WALK"].get(self.eptp) not in (3, 4):
            raise RegisterError("an EPT walk has 4 or 5 levels (bits 5:3 are 3 or 4)", field="EPTP", value=self.eptp)
        if EPTP["MT"].get(self.eptp) not in (0, 6):
            raise RegisterError("the memory type of the tables is UC or WB", field="EPTP", value=self.eptp)
        if self.eptp & EPTP.role_mask(RES0) or self.root >> self.maxphyaddr:
            raise RegisterError("a reserved bit is set", field="EPTP", value=self.eptp)

    @property
    def root(self) -> int:
        return self.eptp & EPTP.address_mask

    @cached_property
    def accessed_dirty(self) -> bool:
        return bool(EPTP["AD"].get(self.eptp))

    @property
    def asks_for_updates(self) -> bool:
        """Without A and D in the EPT a guest's table is read first and written later (30.3.3.2)."""
        return not self.accessed_dirty

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The levels from the root down."""
        depth = EPTP["WALK"].get(self.eptp) + 1
        names = {5: "PML5E", 4: "PML4E", 3: "PDPTE", 2: "PDE", 1: "PTE"}
        leaves = (3, 2, 1) if self.gbpages else (2, 1)
        return tuple(Level(n, f"EPT {names[n]}", "", 3 + 9 * n, 9, n in leaves) for n in range(depth, 0, -1))

    def describe(self) -> Mapping[str, object]:
        """Depth, root and the switches that are on."""
        on = [name for name in _SWITCHES if getattr(self, name)]
        on += ["accessed_dirty"] if self.accessed_dirty else []
        return {"mode": f"EPT, {len(self.levels)} levels", "root": f"{self.root:#x}", "switches": " ".join(on)}

    def layout(self, level: Level, raw: int) -> Layout:
        """How an entry found at `level` is to be read."""
        return _LEAVES[level.number] if self.is_leaf(level, raw) else _TABLES[level.number]

    def is_leaf(self, level: Level, raw: int) -> bool:
        return level.number == 1 or (level.leaf and bool(raw & _PS))

    def present(self, raw: int) -> bool:
        """An entry is present if it grants anything; bit 10 counts under mode-based execute control (30.3.2)."""
        return bool(raw & (R | W | X | (XU if self.mbec else 0)))

    def misconfigured(self, level: Level, raw: int) -> str:
        """Why a present entry is misconfigured (30.3.3.1), or nothing."""
        layout, leaf = self.layout(level, raw), self.is_leaf(level, raw)
        beyond = layout.address_mask >> self.maxphyaddr << self.maxphyaddr
        if raw & W and not raw & R:
            return "writable but not readable"
        if not raw & R and not self.execute_only:
            return "execute-only without that capability"
        if raw & (layout.role_mask(RES0) | beyond) or (not leaf and raw & _PS):
            return "a reserved bit is set"
        if leaf and layout["EMT"].get(raw) in (2, 3, 7):
            return "a reserved memory type"
        if leaf and self.paging_write and raw & _PW and not raw & R:
            return "paging-write without read"
        return ""

    def translate(self, ram: Words, request: Request) -> Generator[Step, None, Reached | Fault]:
        """One walk of a guest-physical address, its A and D bits set."""
        found, table = _Found(), self.root
        for level in self.levels:
            found.level, found.pa = level, table + level.index(request.gpa) * 8
            found.raw = raw = ram.read(found.pa, 8)
            if not self.present(raw):
                found.every = 0
                yield self._step(found, "not present")
                return self._violation(request, found, "the entry is not present")
            if wrong := self.misconfigured(level, raw):
                yield self._step(found, "misconfigured")
                return self._misconfiguration(request, found, wrong)
            found.tables = found.every
            found.every &= raw
            found.used.append(found.pa)
            found.is_leaf = self.is_leaf(level, raw)
            yield self._step(found, "leaf" if found.is_leaf else "table")
            table = raw & self.layout(level, raw).address_mask
            if found.is_leaf:
                break
        if denied := self._denied(request, found):
            if denied != _SUB_PAGE:
                return self._violation(request, found, denied)
            stopped = yield from self._sub_page(ram, request, found)
            if stopped is not None:
                return stopped
        if self.accessed_dirty:
            self._mark(ram, request, found)
        if request.table and not request.update:
            request.tables.append(bool(found.raw & _PW))
        return self._reached(request, found, table)

    def _writes(self, request: Request) -> bool:
        """Whether the access counts as a write: with A and D, every access to a guest's table does (30.3.5)."""
        if request.table:
            return not request.plain and (request.update or self.accessed_dirty)
        return request.access.is_write

    def _reads(self, request: Request) -> bool:
        return not request.update if request.table else not request.access.is_fetch and not request.access.is_write

    def _fetches(self, request: Request) -> bool:
        return not request.table and request.access.is_fetch

    def _denied(self, request: Request, found: _Found) -> str:
        """Why the entries forbid the access (30.3.3.2), or nothing."""
        every, access = found.every, request.access
        if not request.table and access.shadow_stack and not access.is_user and EPTP["SSS"].get(self.eptp):
            good = every & R and found.tables & W and found.raw & _SSS
            return "" if good else "a supervisor shadow-stack access to a page that is none (30.3.3.2)"
        if self._fetches(request):
            bit = XU if self.mbec and self._user_address(request) else X
            return "" if every & bit else f"execution needs {'XU' if bit == XU else 'X'}"
        if self._reads(request) and not every & R:
            return "reading needs R"
        if self._writes(request) and not every & W:
            if request.table and self.paging_write and found.raw & _PW and every & R:
                return ""
            small = found.level is not None and found.level.number == 1
            sub_page = self.spp and not request.table and small and found.raw & _SPP and every & R
            return _SUB_PAGE if sub_page else "writing needs W"
        if self.guest_paging_verification and not request.table and found.raw & _VGP and not all(request.tables):
            return _VERIFICATION
        return ""

    def _user_address(self, request: Request) -> bool:
        """Whether the guest's own tables make this a user-mode address; all are with paging off (30.3.2)."""
        return request.leaf is None or request.leaf.path.is_user

    def _sub_page(self, ram: Words, request: Request, found: _Found) -> Generator[Step, None, EptFault | None]:
        """Sub-page write permissions of a 4-KByte page, 128 bytes each (30.3.4)."""
        table = self.sppt & SPPT_ENTRY.address_mask
        for number in (4, 3, 2, 1):
            pa = table + (request.gpa >> 3 + 9 * number & 511) * 8
            raw = ram.read(pa, 8)
            yield Step(
                rule="sub-page permissions", note=f"level {number}", stage=2, level=number, name=f"SPPT L{number}",
                pa=pa, raw=raw, kind=SPPT_ENTRY if number > 1 else None, source=f"{SDM} 30.3.4",
            )  # fmt: skip
            if number == 1:
                break
            if not SPPT_ENTRY["V"].get(raw):
                return self._spp_event(request, pa, raw, miss=True)
            if raw & SPPT_ENTRY.role_mask(RES0) or (raw & SPPT_ENTRY.address_mask) >> self.maxphyaddr:
                return self._spp_event(request, pa, raw, miss=False)
            table = raw & SPPT_ENTRY.address_mask
        if raw & _ODD_BITS:
            return self._spp_event(request, pa, raw, miss=False)
        if raw >> 2 * (request.gpa >> 7 & 31) & 1:
            return None
        return self._violation(request, found, "the sub-page is not writable")

    def _spp_event(self, request: Request, pa: int, raw: int, *, miss: bool) -> EptFault:
        name = "SPP miss" if miss else "SPP misconfiguration"
        code = SPP_QUALIFICATION.build(MISS=miss)
        return EptFault(
            va=request.va, name=name, code=code, rule=name, stage=2, entry_pa=pa, entry=raw, source=f"{SDM} 30.3.4",
            causes=(name,), allowed=(code,),
            syndrome={"EXIT_QUALIFICATION": code, "GUEST_PHYSICAL_ADDRESS": request.gpa},
        )  # fmt: skip

    def _mark(self, ram: Words, request: Request, found: _Found) -> None:
        for pa in found.used:
            ram.change(pa, 8, A | (D if pa == found.used[-1] and self._writes(request) else 0))

    def _reached(self, request: Request, found: _Found, page: int) -> Reached:
        assert found.level is not None
        layout = self.layout(found.level, found.raw)
        target = page | request.gpa & (1 << found.level.shift) - 1
        return Reached(found.level, found.pa, found.raw, layout, Path(), target)

    def attributes(self, leaf: Reached) -> dict[str, object]:
        """The memory type that a leaf gives, and whether it overrides the guest's PAT (30.3.7)."""
        emt, ipat = leaf.layout["EMT"].get(leaf.raw), bool(leaf.layout["IPAT"].get(leaf.raw))
        return {"EPT memory type": MEMORY_TYPES.get(emt, "reserved"), "ignore PAT": ipat}

    def qualification(self, request: Request, found: _Found, *, verification: bool = False) -> int:
        """The exit qualification of a violation, bit by bit (table 29-7)."""
        access, final, every = request.access, not request.table, found.every
        shadow = final and access.shadow_stack
        told = {
            "READ": self._reads(request), "WRITE": self._writes(request), "FETCH": self._fetches(request),
            "R": every & R, "W": every & W, "X": every & X, "XU": self.mbec and every & XU,
            "LA_VALID": not request.plain, "FINAL": final and not request.plain, "SHADOW_STACK": shadow,
            "SSS": bool(EPTP["SSS"].get(self.eptp)) and found.is_leaf and found.raw & _SSS, "VGP": verification,
        }  # fmt: skip
        if self.advanced and final:
            path = request.leaf.path if request.leaf else None
            told["USER_PAGE"] = path is None or path.is_user
            told["WRITABLE_PAGE"] = path is None or path.is_writable
            told["XD_PAGE"] = path is not None and path.any_of & rules.XD
        return EPT_QUALIFICATION.build(**{name: bool(value) for name, value in told.items()})

    def _violation(self, request: Request, found: _Found, rule: str) -> EptFault:
        assert found.level is not None
        code = self.qualification(request, found, verification=rule == _VERIFICATION)
        allowed = [code]
        if not request.table and request.access.rmw:  # a read-modify-write may tell of both halves
            allowed.append(code | EPT_QUALIFICATION["READ"].mask)
        convertible = self.ve and not found.raw & _SVE
        where = {"EXIT_QUALIFICATION": code, "GUEST_PHYSICAL_ADDRESS": request.gpa, "GUEST_LINEAR_ADDRESS": request.va}
        return EptFault(
            va=request.va, name="#VE" if convertible else "EPT violation", code=code, rule=rule, stage=2,
            level=found.level.number, entry_pa=found.pa, entry=found.raw, source=f"{SDM} 30.3.3.2", syndrome=where,
            guest_level=request.leaf.level.number if request.leaf else None, causes=(rule,), allowed=tuple(allowed),
            bit=_BITS.get(rule, "R W X"),
        )  # fmt: skip

    def _misconfiguration(self, request: Request, found: _Found, rule: str) -> EptFault:
        assert found.level is not None
        return EptFault(
            va=request.va, name="EPT misconfiguration", code=0, rule=rule, stage=2, level=found.level.number,
            entry_pa=found.pa, entry=found.raw, source=f"{SDM} 30.3.3.1", causes=(rule,), allowed=(0,),
            syndrome={"GUEST_PHYSICAL_ADDRESS": request.gpa},
        )  # fmt: skip

    def _step(self, found: _Found, note: str) -> Step:
        assert found.level is not None
        return Step(
            rule="EPT", note=note, stage=2, level=found.level.number, name=found.level.name, pa=found.pa, raw=found.raw,
            kind=self.layout(found.level, found.raw), source=f"{SDM} 30.3.2",
        )  # fmt: skip


_SUB_PAGE = "writing needs W or the sub-page's permission"
_VERIFICATION = "a guest table lies in a page without paging-write (guest-paging verification)"
_BITS = {"reading needs R": "R", "writing needs W": "W", "execution needs X": "X", "execution needs XU": "XU"}


@dataclass(frozen=True)
class EptRegime:
    """A guest's regime over extended page tables: its CR3 and entries hold guest-physical addresses."""

    guest: X86Regime
    ept: Ept
    arch: str = field(default="x86_64", init=False)

    def walk(self, memory: Memory, va: int, access: Access | None = None, *, update: bool = False) -> Walk:
        """Translate a guest's linear address to a host-physical one; steps of stage 2 are the EPT walks."""
        return walk(self.guest, memory, va, X86Access.of(access), update=update, second=self.ept)

    @property
    def trees(self) -> tuple[Tree, ...]:
        """None: no table of the guest lies where its address says."""
        return ()

    def classify(self, level: Level, raw: int) -> Entry:
        """What the guest's walk makes of an entry of its own."""
        return self.guest.classify(level, raw)

    def describe(self) -> Mapping[str, object]:
        """Guest and extended page tables."""
        return {"mode": "nested paging", "guest": self.guest.describe(), "ept": self.ept.describe()}
