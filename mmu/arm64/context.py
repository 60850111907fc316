"""One translation under way: the access, the memory port, the fault record, and what the walk has found so far."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from ...arch.arm64.faults import FaultType, fault_status_code
from ...arch.errors import BusError
from ..memory import Memory
from ..walk import Step
from .access import Arm64Access, PASpace
from .attributes import MemAttrs
from .system import RegimeName, SystemState

T = TypeVar("T")
Steps = Generator[Step, None, T]

GPCF_NONE, GPCF_ADDRESS_SIZE, GPCF_WALK, GPCF_EABT, GPCF_FAIL = range(5)


class Port:
    """Memory as the walker reaches it: reads and swaps, counted; writes kept back unless `commit` is set.

    Words written stay visible to later reads of the same walk either way. `updates` lists (address, old, new).
    """

    def __init__(self, memory: Memory, *, commit: bool) -> None:
        self.memory, self.commit = memory, commit
        self.written: dict[int, int] = {}
        self.original: dict[int, int] = {}
        self.reads = self.writes = 0

    def read(self, pa: int, size: int) -> int:
        """The little-endian word of `size` bytes (8 or 16); BusError where nothing backs it."""
        value = self.memory.read_uint(pa, size)
        for offset in range(0, size if self.written else 0, 8):
            if pa + offset in self.written:
                value &= ~(0xFFFF_FFFF_FFFF_FFFF << 8 * offset)
                value |= self.written[pa + offset] << 8 * offset
        return value

    def write(self, pa: int, old: int, new: int, size: int) -> None:
        """Store the 8-byte words of `new` that differ from `old`."""
        for offset in range(0, size, 8):
            before, after = (value >> 8 * offset & 0xFFFF_FFFF_FFFF_FFFF for value in (old, new))
            if before != after:
                self.original.setdefault(pa + offset, before)
                self.written[pa + offset] = after
                if self.commit:
                    self.memory.write_uint(pa + offset, after)

    @property
    def updates(self) -> tuple[tuple[int, int, int], ...]:
        """The words that changed, in the order of their first change."""
        return tuple((pa, old, self.written[pa]) for pa, old in self.original.items() if self.written[pa] != old)


@dataclass(slots=True)
class FaultRecord:
    """What an abort knows (FaultRecord of the shared pseudocode), and what to tell people about it."""

    fault: FaultType
    level: int
    write: bool = False
    stage2: bool = False
    s2fs1walk: bool = False
    dirty_bit: bool = False
    overlay: bool = False
    top_level: bool = False
    assured_only: bool = False
    ipa: int | None = None
    ipa_space: PASpace = PASpace.NonSecure
    gpcf: int = GPCF_NONE
    gpcf_level: int = 0
    gpcf_s2walk: bool = False
    pa: int = 0
    pa_space: PASpace = PASpace.NonSecure
    rule: str = ""
    source: str = ""
    bit: str = ""
    entry_pa: int | None = None
    entry: int | None = None
    also: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """The fault status code."""
        return fault_status_code(self.fault, self.level)

    def text(self) -> str:
        """One line for lists: what, where, and the control to blame."""
        stage = ", stage 2" if self.stage2 else ""
        level = "" if self.fault is FaultType.ALIGNMENT else f" L{self.level}"
        return f"{self.fault.title}{level}{stage}: {self.rule}{f' ({self.bit})' if self.bit else ''}"


class Abort(Exception):
    """Ends a walk with a fault record; never leaves this package."""

    def __init__(self, record: FaultRecord) -> None:
        self.record = record
        super().__init__(record.rule)


@dataclass(slots=True)
class LeafInfo:
    """Where a stage found its leaf: sizes are log2 of bytes, `contiguous_log2` log2 of entries (0: not contiguous)."""

    level: int
    raw: int
    entry_pa: int
    size_log2: int
    contiguous_log2: int
    ng: int = 0
    guarded: int = 0


@dataclass(slots=True)
class Detail:
    """Everything a finished translation knows; the parts that were not reached stay None."""

    fault: FaultRecord | None = None
    pa: int = 0
    pa_space: PASpace = PASpace.NonSecure
    attrs: MemAttrs | None = None
    s1_leaf: LeafInfo | None = None
    s2_leaf: LeafInfo | None = None
    ipa: int | None = None
    ipa_space: PASpace = PASpace.NonSecure
    s1_assured: bool = False
    reads: int = 0
    writes: int = 0
    rights: int = 0
    updates: tuple[tuple[int, int, int], ...] = ()


@dataclass(slots=True)
class Context:
    """One translation: who asks for what, through which registers and memory."""

    system: SystemState
    port: Port
    va: int
    access: Arm64Access
    el: int
    regime: RegimeName
    security: PASpace
    detail: Detail = field(default_factory=Detail)

    @property
    def acctype(self) -> str:
        return self.access.traits.acctype

    @property
    def default_write(self) -> bool:
        """FaultRecord.write before any permission check."""
        traits = self.access.traits
        return traits.write and not traits.read

    def is_cache_op(self) -> bool:
        return self.acctype in ("DC", "DCI")

    def nt_faults(self) -> bool:
        """Whether an nT bit that is set faults (AArch64_BlocknTFaults)."""
        choices = self.system.choices
        return "FEAT_BBM" in self.system.features and choices.bbm_level in (1, 2) and choices.nt_block_faults


def first_fault(candidates: Iterator[FaultRecord]) -> FaultRecord | None:
    """The first of the faults in priority order, the others listed in its `also`; None where there is none."""
    record = next(candidates, None)
    if record is not None:
        record.also = tuple(other.text() for other in candidates)
    return record


def swap_bytes(value: int, size: int) -> int:
    """`value` with its bytes reversed (SCTLR_ELx.EE)."""
    return int.from_bytes(value.to_bytes(size, "little"), "big")


def read_descriptor(ctx: Context, pa: int, size: int, big_endian: bool, template: FaultRecord) -> int:
    """Fetch a descriptor; an address without memory is an external abort on the walk."""
    try:
        raw = ctx.port.read(pa, size)
    except BusError as error:
        template.fault, template.rule, template.entry_pa = FaultType.SYNC_EXTERNAL_ON_WALK, "no memory there", pa
        template.source, template.bit = "FetchDescriptor", f"address {pa:#018x}"
        raise Abort(template) from error
    ctx.port.reads += 1
    return swap_bytes(raw, size) if big_endian else raw


def swap_descriptor(ctx: Context, pa: int, size: int, big_endian: bool, old: int, new: int) -> bool:
    """Compare and swap; False where memory no longer holds `old` (AArch64_MemSwapTableDesc)."""
    if big_endian:
        old, new = swap_bytes(old, size), swap_bytes(new, size)
    ctx.port.reads += 1
    if ctx.port.read(pa, size) != old:
        return False
    ctx.port.write(pa, old, new, size)
    ctx.port.writes += 1
    return True
