"""The reference walker of x86 long mode: the executable statement of Intel SDM volume 3A 5.5 to 5.7."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...arch.layout import Layout
from ...arch.x86_64 import entries
from ...arch.x86_64.faults import PF_ERROR_CODE
from ...arch.x86_64.registers import CR0, CR4, EFER, MEMORY_TYPES, PAT, RFLAGS
from ..memory import Memory
from ..walk import Access, AccessKind, Fault, Level, Rights, Step, Translation, Walk

if TYPE_CHECKING:
    from .regime import X86Regime

SDM = "Intel SDM volume 3A"
_PTE = entries.PTE
_RW, _US, _XD, _P, _A, _D = (_PTE[name].mask for name in ("RW", "US", "XD", "P", "A", "D"))


@dataclass(slots=True)
class _Path:
    """What the entries so far add up to: AND of R/W and U/S, OR of XD."""

    both: int = _RW | _US
    any: int = 0

    def add(self, raw: int) -> None:
        self.both &= raw
        self.any |= raw & _XD


def rights(regime: X86Regime, both: int, any_: int) -> Rights:
    """Which plain accesses a path with these combined bits allows under the present registers."""
    granted = Rights(0)
    for kind in AccessKind:
        for user in (False, True):
            if next(violations(regime, both, any_, Access(kind, user)), None) is None:
                granted |= Rights.of(kind, user=user)
    return granted


def violations(regime: X86Regime, both: int, any_: int, access: Access) -> Iterator[tuple[str, str]]:
    """The protection rules that forbid an access, as (rule, register or entry bit to blame), in the manual's order."""
    page_user, writable = bool(both & _US), bool(both & _RW)
    write, fetch = access.kind is AccessKind.WRITE, access.kind is AccessKind.EXECUTE
    if access.user and not page_user:
        yield "user access to a supervisor page", "US"
    if write and not writable and (access.user or regime.flag(CR0, "WP")):
        yield "write to a read-only page", "RW"
    if fetch and any_ & _XD:
        yield "instruction fetch from an execute-disable page", "XD"
    if not access.user and page_user:
        if fetch and regime.flag(CR4, "SMEP"):
            yield "supervisor fetch from a user page (SMEP)", "US"
        if not fetch and regime.flag(CR4, "SMAP") and not regime.flag(RFLAGS, "AC"):
            yield "supervisor access to a user page (SMAP)", "US"


def walk(regime: X86Regime, memory: Memory, va: int, access: Access, *, update: bool = False) -> Walk:
    """Walk one linear address, a step an entry, to a `Translation` or a `Fault`."""
    half = 1 << regime.va_bits - 1
    if half <= va < (1 << 64) - half:
        yield Step(rule="canonical", note=f"bits 63:{regime.va_bits - 1} differ", source=f"{SDM} 4.5.3")
        return Fault(
            va=va, name="#GP", code=0, rule=f"the address is not canonical for {regime.va_bits} bits",
            bit=f"bits 63:{regime.va_bits - 1} of the address", source=f"{SDM} 5.5.4",
        )  # fmt: skip
    table, path, used = regime.root, _Path(), []
    for level in regime.levels:
        pa = table + level.index(va) * 8
        raw = memory.read_uint(pa)
        layout = regime.layout(level, raw)
        if not raw & _P:
            yield _step(regime, level, pa, raw, layout, path, "present", "not present")
            return _fault(regime, va, access, level, pa, raw, 0, "the entry is not present", "P", ())
        if wrong := regime.reserved(level, raw):
            yield _step(regime, level, pa, raw, layout, path, "reserved bits", f"reserved bits set: {wrong:#x}")
            code = PF_ERROR_CODE.build(P=1, RSVD=1)
            return _fault(regime, va, access, level, pa, raw, code, "a reserved bit is set", _names(layout, wrong), ())
        path.add(raw)
        used.append((pa, raw))
        entry = regime.classify(level, raw)
        leaf = level.number == 1 or entry.type.value == "leaf"
        yield _step(regime, level, pa, raw, layout, path, "translation", "leaf" if leaf else "table")
        if leaf:
            break
        table = entry.pa
    failed = list(violations(regime, path.both, path.any, access))
    if failed:
        (rule, bit), rest = failed[0], failed[1:]
        code = PF_ERROR_CODE.build(P=1)
        return _fault(regime, va, access, level, pa, raw, code, rule, bit, tuple(r for r, _ in rest))
    updates = tuple(_updates(used, access))
    if update:
        for where, _, new in updates:
            memory.write_uint(where, new)
    offset = va & (1 << level.shift) - 1
    return Translation(
        va=va, pa=entry.pa | offset, level=level.number, page_shift=level.shift,
        rights=rights(regime, path.both, path.any), entry_pa=pa, entry=raw, updates=updates,
        attributes=_attributes(regime, layout, raw),
    )  # fmt: skip


def _step(
    regime: X86Regime, level: Level, pa: int, raw: int, layout: Layout, path: _Path, rule: str, note: str
) -> Step:
    return Step(
        rule=rule, note=note, level=level.number, name=level.name, linux_name=level.linux_name, pa=pa, raw=raw,
        kind=layout, rights=rights(regime, path.both, path.any), source=f"{SDM} 5.5.4",
    )  # fmt: skip


def _names(layout: Layout, bits: int) -> str:
    return " ".join(f.name for f in layout.values() if f.mask & bits)


def _fault(
    regime: X86Regime, va: int, access: Access, level: Level, pa: int, raw: int, code: int, rule: str, bit: str,
    also: tuple[str, ...],
) -> Fault:  # fmt: skip
    fetch = access.kind is AccessKind.EXECUTE
    code |= PF_ERROR_CODE.build(
        WR=access.kind is AccessKind.WRITE,
        US=access.user,
        ID=fetch and (regime.flag(EFER, "NXE") or regime.flag(CR4, "SMEP")),
    )
    return Fault(
        va=va, name="#PF", code=code, rule=rule, level=level.number, entry_pa=pa, entry=raw, bit=bit,
        source=f"{SDM} 5.6, 5.7", also=also, syndrome={"CR2": va},
    )  # fmt: skip


def _updates(used: list[tuple[int, int]], access: Access) -> Iterator[tuple[int, int, int]]:
    """Accessed in every entry used, dirty in the leaf of a write (Intel SDM volume 3A 5.8)."""
    for i, (pa, raw) in enumerate(used):
        dirty = _D if i == len(used) - 1 and access.kind is AccessKind.WRITE else 0
        if (new := raw | _A | dirty) != raw:
            yield pa, raw, new


def _attributes(regime: X86Regime, layout: Layout, raw: int) -> dict[str, object]:
    index = layout["PAT"].get(raw) << 2 | layout["PCD"].get(raw) << 1 | layout["PWT"].get(raw)
    kind = MEMORY_TYPES.get(PAT[f"PA{index}"].get(regime.pat), "reserved")
    return {"memory_type": kind, "pat_index": index, "global": bool(raw & layout["G"].mask)}
