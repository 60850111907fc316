"""Linux's use of x86-64 entries (arch/x86/include/asm/pgtable_types.h, pgtable_64.h, pgtable-invert.h)."""

from __future__ import annotations

from ..errors import InputError
from ..layout import Layout, bit, bits, merge, res0, software
from ..linux import EntryKind, Linux, LinuxEntry, LinuxFlags, Paging, Release
from . import entries

_SOURCE = "Linux arch/x86/include/asm/"


def _software(name: str, when: str, bit57: str, bit58: str) -> Layout:
    """The software bits of a leaf; the HW fields are the hardware's or ignored."""
    low = [bits("HW_8_0", 9), software("SPECIAL"), software("UFFD_WP"), software("SOFT_DIRTY")]
    high = [software(bit57) if bit57 else bit("HW_57"), software(bit58), bits("HW_63_59", 5)]
    title = f"Linux's software bits in an x86-64 leaf {when}"
    return Layout(name, *low, bits("HW_56_12", 45), *high, title=title, source=_SOURCE + "pgtable_types.h")


LINUX_PTE_4_19 = _software("LINUX_PTE_4_19", "before 6.6", "", "DEVMAP")
LINUX_PTE_6_6 = _software("LINUX_PTE_6_6", "from 6.6 to 6.16", "DEVMAP", "SAVED_DIRTY")
LINUX_PTE = _software("LINUX_PTE", "since 6.17", "", "SAVED_DIRTY")
LINUX_PGD = Layout(
    "LINUX_PGD",
    bits("HW_57_0", 58),
    software("NOPTISHADOW"),
    bits("HW_63_59", 5),
    title="Linux's software bit in an x86-64 root entry since 6.13",
    source=_SOURCE + "pgtable_types.h",
)


def _swap(name: str, when: str, exclusive: bool) -> Layout:
    third = [software("EXCLUSIVE"), res0(3)] if exclusive else [res0(4)]
    low = [bit("P"), software("SOFT_DIRTY"), software("UFFD_WP"), *third, bit("PS"), bit("PROT_NONE")]
    title = f"an x86-64 entry in Linux's swap format {when}; the offset is stored inverted (L1TF)"
    tail = [software("OFFSET", 50), software("TYPE", 5)]
    return Layout(name, *low, *tail, title=title, source=_SOURCE + "pgtable_64.h")


LINUX_SWAP_4_19 = _swap("LINUX_SWAP_4_19", "before 5.19", exclusive=False)
LINUX_SWAP = _swap("LINUX_SWAP", "since 5.19", exclusive=True)
LAYOUTS = merge(LINUX_PTE_4_19, LINUX_PTE_6_6, LINUX_PTE, LINUX_PGD, LINUX_SWAP_4_19, LINUX_SWAP)

_PTE = entries.PTE
_P, _RW, _US, _A, _D, _G, _XD = (_PTE.mask(name) for name in ("P", "RW", "US", "A", "D", "G", "XD"))
_PS, _PROT_NONE = LINUX_SWAP.mask("PS"), LINUX_SWAP.mask("PROT_NONE")
_NOPTISHADOW = LINUX_PGD.mask("NOPTISHADOW")
_LEAVES = {1: entries.PTE, 2: entries.PDE_2M, 3: entries.PDPTE_1G}
_TABLE_MASK = entries.PDE.address_mask
_PFN = _PTE.address_mask  # PTE_PFN_MASK: the bits that are inverted where P=0
_OFFSET, _TYPE = LINUX_SWAP["OFFSET"], LINUX_SWAP["TYPE"]
_RIGHTS = _P | _RW | _US | _G | _XD | _PTE.mask("PK")  # outside _PAGE_CHG_MASK: pte_modify replaces them
_F = LinuxFlags

KPTI_ROOT = 1 << 12  # kernel root and user root are two neighbouring pages (arch/x86/mm/pti.c)


def kpti_roots(root: int) -> tuple[int, int]:
    """The kernel's and the user's root under page-table isolation, from either of the two addresses in bytes.

    >>> [hex(pa) for pa in kpti_roots(0x5001000)]
    ['0x5000000', '0x5001000']
    """
    return root & ~KPTI_ROOT, root | KPTI_ROOT


class X86Linux(Linux):
    """Linux on x86-64: software bits 9 to 11, 57 and 58, PROT_NONE in bit 8, PFNs inverted where P=0."""

    arch = "x86_64"
    uffd_wp_since = (5, 7)

    def __init__(self, release: Release, paging: Paging, device_private: bool | None, notes: tuple[str, ...]) -> None:
        self.software = LINUX_PTE if release >= (6, 17) else LINUX_PTE_6_6 if release >= (6, 6) else LINUX_PTE_4_19
        self.swap_format = LINUX_SWAP if release >= (5, 19) else LINUX_SWAP_4_19
        super().__init__(release, paging, device_private, notes)
        self._saved_dirty = self.software.mask("SAVED_DIRTY") if "SAVED_DIRTY" in self.software else 0
        self._simple = {_F.USER: _US, _F.YOUNG: _A, _F.SPECIAL: self.software.mask("SPECIAL")}
        self._simple |= {_F.SOFT_DIRTY: self.software.mask("SOFT_DIRTY"), _F.UFFD_WP: self.software.mask("UFFD_WP")}
        if "DEVMAP" in self.software:
            self._simple[_F.DEVMAP] = self.software.mask("DEVMAP")

    @property
    def physmem_bits(self) -> int:
        return 52 if len(self.paging.levels) == 5 else 46

    def _pack(self, type: int, offset: int) -> int:
        return _TYPE.put(_OFFSET.put(0, ~offset & (1 << _OFFSET.width) - 1), type)

    def _unpack(self, raw: int) -> tuple[int, int]:
        return _TYPE.get(raw), ~_OFFSET.get(raw) & (1 << _OFFSET.width) - 1

    def _present(self, level: int, raw: int) -> LinuxEntry | None:
        if raw == 0:
            return LinuxEntry(EntryKind.NONE, level, raw)
        if raw & _P and (level > 3 or (level > 1 and not raw & _PS)):
            return self._table_entry(level, raw)
        if raw & _P:
            kind = EntryKind.PRESENT
        elif raw & _PROT_NONE:
            kind = EntryKind.PROT_NONE
        elif raw & _PS and level in (2, 3):
            kind = EntryKind.INVALID
        else:
            return None
        value = raw if raw & _P else raw ^ _PFN
        pfn = (value & _LEAVES.get(level, _PTE).address_mask) >> self.paging.page_shift
        return LinuxEntry(kind, level, raw, True, pfn, flags=self._flags(raw))

    def _table_entry(self, level: int, raw: int) -> LinuxEntry:
        flags = _F.NONE
        for flag, mask in ((_F.WRITE, _RW), (_F.USER, _US), (_F.YOUNG, _A)):
            flags |= flag if raw & mask else _F.NONE
        flags |= _F.NONE if raw & _XD else _F.EXEC
        if level == self.paging.levels[0] and self.release >= (6, 13) and raw & _NOPTISHADOW:
            flags |= _F.NOPTISHADOW
        pfn = (raw & _TABLE_MASK) >> self.paging.page_shift
        return LinuxEntry(EntryKind.TABLE, level, raw, True, pfn, flags=flags)

    def _flags(self, raw: int) -> LinuxFlags:
        flags = _F.WRITE if raw & _RW else _F.NONE
        for flag, mask in self._simple.items():
            flags |= flag if raw & mask else _F.NONE
        if raw & (_D | self._saved_dirty):
            flags |= _F.DIRTY
        if raw & _P:
            flags |= _F.GLOBAL if raw & _G else _F.NONE
            flags |= _F.NONE if raw & _XD else _F.EXEC
            if self._saved_dirty and raw & _D and not raw & _RW:
                flags |= _F.SHADOW_STACK
        return flags

    def _rights(self, level: int, flags: LinuxFlags, prot_none: bool) -> int:
        if prot_none:
            return _PROT_NONE
        value = _P | (_RW if _F.WRITE in flags else 0) | (_US if _F.USER in flags else 0)
        return value | (_G if _F.GLOBAL in flags else 0) | (0 if _F.EXEC in flags else _XD)

    def page(self, level: int, pfn: int, flags: LinuxFlags, *, prot_none: bool = False) -> int:
        pa = pfn << self.paging.page_shift
        if level not in _LEAVES or pa & ~_LEAVES[level].address_mask:
            raise InputError(f"a level {level} entry cannot map this page", field="pfn", value=pfn)
        value = pa | self._rights(level, flags, prot_none) | (_PS if level > 1 else 0)
        for flag in flags & ~(_F.WRITE | _F.USER | _F.GLOBAL | _F.EXEC | _F.DIRTY | _F.SHADOW_STACK):
            value |= self._simple_mask(flag)
        if flags & (_F.DIRTY | _F.SHADOW_STACK):
            value |= _D
        if _F.SHADOW_STACK not in flags:
            value = self._save_dirty(value)
        return value if value & _P else value ^ _PFN

    def _simple_mask(self, flag: LinuxFlags) -> int:
        if flag not in self._simple:
            text = f"an x86-64 leaf of Linux {self.release[0]}.{self.release[1]} has no {flag.text()} bit"
            raise InputError(text, field="flags", value=flag.text())
        return self._simple[flag]

    def _save_dirty(self, raw: int) -> int:
        """pte_mksaveddirty and pte_clear_saveddirty: a read-only dirty leaf keeps its dirtiness in software (6.6)."""
        if not self._saved_dirty:
            return raw
        if raw & _RW and raw & self._saved_dirty:
            return raw & ~self._saved_dirty | _D
        if not raw & _RW and raw & _D:
            return raw & ~_D | self._saved_dirty
        return raw

    def table(self, level: int, pa: int) -> int:
        if pa & ~_TABLE_MASK:
            raise InputError("no entry can hold this table address", field="pa", value=pa)
        return pa | _P | _RW | _US | _A | _D

    def set(self, level: int, raw: int, flags: LinuxFlags) -> int:
        if self._present(level, raw) is None:
            return raw | self._swap_flag_mask(flags)
        for flag in flags:
            if flag is _F.WRITE:
                raw = self._save_dirty(raw | _RW)
            elif flag is _F.DIRTY:  # pte_mkdirty sets soft-dirty too
                raw = self._save_dirty(raw | _D | self._simple[_F.SOFT_DIRTY])
            elif flag is _F.EXEC:
                raw &= ~_XD
            elif flag is _F.GLOBAL:
                raw |= _G
            else:
                raw |= self._simple_mask(flag)
        return raw

    def clear(self, level: int, raw: int, flags: LinuxFlags) -> int:
        if self._present(level, raw) is None:
            return raw & ~self._swap_flag_mask(flags)
        for flag in flags:
            if flag is _F.WRITE:
                raw = self._save_dirty(raw & ~_RW)
            elif flag is _F.DIRTY:
                raw &= ~(_D | self._saved_dirty)
            elif flag is _F.EXEC:
                raw |= _XD
            elif flag is _F.GLOBAL:
                raw &= ~_G
            else:
                raw &= ~self._simple_mask(flag)
        return raw

    @property
    def wrprotect(self) -> tuple[int, int, int, int, int]:
        return (_RW, _D, _D, _D, self._saved_dirty) if self._saved_dirty else (_RW, 0, 0, 0, 0)

    def modify(self, level: int, raw: int, flags: LinuxFlags, *, prot_none: bool = False) -> int:
        value = raw if raw & _P else raw ^ _PFN
        value = self._save_dirty(value & ~_RIGHTS | self._rights(level, flags & ~_F.GLOBAL, prot_none))
        return value if value & _P else value ^ _PFN

    def invalidate(self, level: int, raw: int) -> int:
        if level not in (2, 3):
            raise InputError("only huge entries are invalidated", field="level", value=level)
        return (raw & ~(_P | _PROT_NONE)) ^ (_PFN if raw & _P else 0)
