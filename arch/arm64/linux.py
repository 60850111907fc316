"""Linux's use of arm64 descriptors (arch/arm64/include/asm/pgtable-prot.h, pgtable.h)."""

from __future__ import annotations

from ..errors import InputError
from ..layout import Layout, bit, bits, merge, res0, software
from ..linux import EntryKind, Linux, LinuxEntry, LinuxFlags, Paging, Release
from .descriptors import LAYOUTS as DESCRIPTORS
from .descriptors import layout_for, output_address, with_address

_SOURCE = "Linux arch/arm64/include/asm/"


def _software(name: str, when: str, bit57: str, bit58: str, bit59: str = "") -> Layout:
    """The software bits of a leaf; the HW fields are the hardware's or unused."""
    high = [software(bit57) if bit57 else bit("HW_57"), software(bit58)]
    high += [software(bit59), bits("HW_63_60", 4)] if bit59 else [bits("HW_63_59", 5)]
    low = [bits("HW_10_0", 11), software("PRESENT_INVALID") if not bit59 else bit("HW_11"), bits("HW_50_12", 39)]
    title = f"Linux's software bits in an arm64 leaf {when}"
    fields = [*low, software("WRITE"), bits("HW_54_52", 3), software("DIRTY"), software("SPECIAL"), *high]
    return Layout(name, *fields, title=title, source=_SOURCE + "pgtable-prot.h")


# PRESENT_INVALID and PROT_NONE have their meaning only where the descriptor is invalid; bit 11 is nG in a valid one
LINUX_PTE_4_19 = _software("LINUX_PTE_4_19", "before 6.10", "DEVMAP", "PROT_NONE", "PRESENT_INVALID")
LINUX_PTE_6_10 = _software("LINUX_PTE_6_10", "from 6.10 to 6.16", "DEVMAP", "UFFD_WP")
LINUX_PTE = _software("LINUX_PTE", "since 6.17", "", "UFFD_WP")


def _old_swap(name: str, when: str, exclusive: bool) -> Layout:
    kind = [software("EXCLUSIVE"), software("TYPE", 5)] if exclusive else [software("TYPE", 6)]
    tail = [software("OFFSET", 50), bit("PROT_NONE"), bit("PRESENT_INVALID"), res0(4)]
    title = f"an arm64 entry in Linux's swap format {when}"
    return Layout(name, res0(2), *kind, *tail, title=title, source=_SOURCE + "pgtable.h")


LINUX_SWAP_4_19 = _old_swap("LINUX_SWAP_4_19", "before 5.19", exclusive=False)
LINUX_SWAP_5_19 = _old_swap("LINUX_SWAP_5_19", "from 5.19 to 6.9", exclusive=True)
LINUX_SWAP = Layout(
    "LINUX_SWAP",
    res0(2),
    software("EXCLUSIVE"),
    software("UFFD_WP"),
    res0(2),
    software("TYPE", 5),
    bit("PRESENT_INVALID"),
    software("OFFSET", 50),
    res0(2),
    title="an arm64 entry in Linux's swap format since 6.10",
    source=_SOURCE + "pgtable.h",
)
LAYOUTS = merge(LINUX_PTE_4_19, LINUX_PTE_6_10, LINUX_PTE, LINUX_SWAP_4_19, LINUX_SWAP_5_19, LINUX_SWAP)

_PAGE = DESCRIPTORS["PAGE_4K"]
_VALID, _TYPE_BIT, _AF, _NG, _CONT = (_PAGE.mask(n) for n in ("valid", "page", "AF", "nG", "Contiguous"))
_PXN, _UXN, _GP, _SH, _ATTR = (_PAGE.mask(n) for n in ("PXN", "UXN", "GP", "SH", "AttrIndx"))
_USER, _RDONLY = 0b01 << _PAGE["AP"].shift, 0b10 << _PAGE["AP"].shift
_PO_INDEX = _PAGE.mask("POIndex")
_WRITE, _DIRTY, _SPECIAL = (LINUX_PTE.mask(n) for n in ("WRITE", "DIRTY", "SPECIAL"))
_PXN_TABLE = DESCRIPTORS["TABLE_4K"].mask("PXNTable")
_INNER_SHAREABLE = 3
_GRANULES = {12: "4K", 14: "16K", 16: "64K"}
_F = LinuxFlags
CONT_PTES = {12: 16, 14: 128, 16: 32}  # entries that a contiguous PTE block has, by page shift (contpte)


class Arm64Linux(Linux):
    """Linux on arm64: DBM means writable, dirty and special in bits 55 and 56; 6.10 moved the non-present encodings."""

    arch = "arm64"
    uffd_wp_since = (6, 10)

    def __init__(self, release: Release, paging: Paging, device_private: bool | None, notes: tuple[str, ...]) -> None:
        self.software = LINUX_PTE if release >= (6, 17) else LINUX_PTE_6_10 if release >= (6, 10) else LINUX_PTE_4_19
        old = LINUX_SWAP_5_19 if release >= (5, 19) else LINUX_SWAP_4_19
        self.swap_format = LINUX_SWAP if release >= (6, 10) else old
        self.granule = _GRANULES[paging.page_shift]
        self.form = ("LPA" if paging.page_shift == 16 else "LPA2") if paging.wide else ""
        super().__init__(release, paging, device_private, notes)
        self._present_invalid = self.software.mask("PRESENT_INVALID")
        self._prot_none = self.software.mask("PROT_NONE") if "PROT_NONE" in self.software else 0
        self._simple = {_F.USER: _USER, _F.YOUNG: _AF, _F.SPECIAL: _SPECIAL, _F.CONTIG: _CONT}
        for name in ("DEVMAP", "UFFD_WP"):
            if name in self.software:
                self._simple[LinuxFlags[name]] = self.software.mask(name)

    @property
    def physmem_bits(self) -> int:
        return 52 if self.paging.wide else 48

    @property
    def cont_ptes(self) -> int:
        """How many last-level entries a contiguous block has."""
        return CONT_PTES[self.paging.page_shift]

    def _pack(self, type: int, offset: int) -> int:
        return self.swap_format.build(TYPE=type, OFFSET=offset)

    def _unpack(self, raw: int) -> tuple[int, int]:
        return self.swap_format["TYPE"].get(raw), self.swap_format["OFFSET"].get(raw)

    def _leaf_layout(self, level: int) -> Layout:
        try:
            return layout_for(self.granule, self.form, level, table=False)
        except KeyError:
            text = f"a level {level} entry of the {self.granule} granule cannot map memory"
            raise InputError(text, field="level", value=level) from None

    def _pfn(self, layout: Layout, raw: int) -> int:
        return output_address(layout, raw) >> self.paging.page_shift

    def _present(self, level: int, raw: int) -> LinuxEntry | None:
        if raw == 0:
            return LinuxEntry(EntryKind.NONE, level, raw)
        if raw & _VALID and raw & _TYPE_BIT and level < 3:
            layout = layout_for(self.granule, self.form, level, table=True)
            flags = _F.YOUNG if raw & _AF else _F.NONE
            return LinuxEntry(EntryKind.TABLE, level, raw, True, self._pfn(layout, raw), flags=flags)
        if raw & _VALID:
            kind = EntryKind.PRESENT
        elif raw & self._prot_none:
            kind = EntryKind.PROT_NONE
        elif raw & self._present_invalid and (level < 3 or not self._prot_none):
            none = not self._prot_none and not raw & _USER and raw & _UXN  # pte_protnone since 6.10
            kind = EntryKind.PROT_NONE if none else EntryKind.INVALID
        else:
            return None
        try:
            pfn = self._pfn(self._leaf_layout(level), raw)
        except InputError:
            return LinuxEntry(EntryKind.UNKNOWN, level, raw, stray=raw)
        return LinuxEntry(kind, level, raw, True, pfn, flags=self._flags(raw))

    def _flags(self, raw: int) -> LinuxFlags:
        flags = _F.WRITE if raw & _WRITE else _F.NONE
        for flag, mask in self._simple.items():
            flags |= flag if raw & mask else _F.NONE
        if raw & _DIRTY or (raw & _WRITE and not raw & _RDONLY):
            flags |= _F.DIRTY
        if raw & _VALID:
            flags |= _F.NONE if raw & _NG else _F.GLOBAL
        if not (raw & _UXN and raw & _PXN):
            flags |= _F.EXEC
        return flags

    def _rights(self, flags: LinuxFlags, prot_none: bool) -> int:
        if prot_none:
            return _PXN | _UXN | _RDONLY | (self._prot_none or self._present_invalid)
        value = _VALID | _RDONLY | (_WRITE if _F.WRITE in flags else 0)
        if _F.USER in flags:
            return value | _USER | _PXN | (0 if _F.EXEC in flags else _UXN)
        return value | _UXN | (0 if _F.EXEC in flags else _PXN)

    def page(self, level: int, pfn: int, flags: LinuxFlags, *, prot_none: bool = False) -> int:
        layout = self._leaf_layout(level)
        value = self._rights(flags, prot_none) | (_TYPE_BIT if level == 3 else 0)
        value |= 0 if _F.GLOBAL in flags and not prot_none else _NG
        value |= layout["SH"].put(0, _INNER_SHAREABLE) if "SH" in layout else 0
        for flag in flags & ~(_F.WRITE | _F.USER | _F.GLOBAL | _F.EXEC | _F.DIRTY):
            value |= self._simple_mask(flag)
        if _F.DIRTY in flags:
            value = self._mkdirty(value)
        try:
            return with_address(layout, value, pfn << self.paging.page_shift)
        except ValueError:
            raise InputError(f"a level {level} entry cannot map this page", field="pfn", value=pfn) from None

    def _simple_mask(self, flag: LinuxFlags) -> int:
        if flag not in self._simple:
            text = f"an arm64 leaf of Linux {self.release[0]}.{self.release[1]} has no {flag.text()} bit"
            raise InputError(text, field="flags", value=flag.text())
        return self._simple[flag]

    @staticmethod
    def _mkdirty(raw: int) -> int:
        raw |= _DIRTY
        return raw & ~_RDONLY if raw & _WRITE else raw

    def table(self, level: int, pa: int) -> int:
        layout = layout_for(self.granule, self.form, level, table=True)
        try:
            value = with_address(layout, _VALID | _TYPE_BIT, pa)
        except ValueError:
            raise InputError("no descriptor can hold this table address", field="pa", value=pa) from None
        return value | _PXN_TABLE | (_AF if self.release >= (6, 13) else 0)

    def set(self, level: int, raw: int, flags: LinuxFlags) -> int:
        if self._present(level, raw) is None:
            return raw | self._swap_flag_mask(flags)
        for flag in flags:
            if flag is _F.WRITE:  # 6.18 stopped making clean pages dirty here (143937ca51cc)
                raw |= _WRITE
                raw = raw & ~_RDONLY if raw & _DIRTY or self.release < (6, 18) else raw
            elif flag is _F.DIRTY:
                raw = self._mkdirty(raw)
            elif flag is _F.EXEC:
                raw &= ~(_UXN if raw & _USER else _PXN)
            elif flag is _F.GLOBAL:
                raw &= ~_NG
            else:
                raw |= self._simple_mask(flag)
        return raw

    def clear(self, level: int, raw: int, flags: LinuxFlags) -> int:
        if self._present(level, raw) is None:
            return raw & ~self._swap_flag_mask(flags)
        for flag in flags:
            if flag is _F.WRITE:  # pte_wrprotect keeps a dirty page dirty in software
                dirty = _DIRTY if raw & _WRITE and not raw & _RDONLY else 0
                raw = (raw & ~_WRITE) | _RDONLY | dirty
            elif flag is _F.DIRTY:
                raw = (raw & ~_DIRTY) | _RDONLY
            elif flag is _F.EXEC:
                raw |= _UXN | _PXN
            elif flag is _F.GLOBAL:
                raw |= _NG
            else:
                raw &= ~self._simple_mask(flag)
        return raw

    @property
    def wrprotect(self) -> tuple[int, int, int, int, int]:
        return _WRITE, _RDONLY, 0, 0, _RDONLY | _DIRTY

    def modify(self, level: int, raw: int, flags: LinuxFlags, *, prot_none: bool = False) -> int:
        if raw & _WRITE and not raw & _RDONLY:
            raw |= _DIRTY
        replaced = _USER | _PXN | _UXN | _RDONLY | _WRITE | _GP | _VALID | _PO_INDEX | self._prot_none
        raw = raw & ~replaced | self._rights(flags, prot_none)
        return self._mkdirty(raw) if raw & _DIRTY else raw

    def invalidate(self, level: int, raw: int) -> int:
        if level >= 3:
            raise InputError("only huge entries are invalidated", field="level", value=level)
        return (raw & ~_VALID) | self._present_invalid
