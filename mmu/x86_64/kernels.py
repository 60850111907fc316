"""The full rules, compiled: 32-bit, PAE, 4- and 5-level paging and nested paging, equal to the reference walker.

One function walks the host's tables, one the guest's (or the only) tables; both take their controls from a row of
`rows.pack` and leave what they found in a scratch array whose places `SLOTS` names. Accessed and dirty bits are written
as they are found, noted in `log`, and taken back where the walk faults or nobody asked for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arch.errors import PtwalkError
from ...arch.x86_64 import entries
from ...arch.x86_64.faults import NPF_EXITINFO1, PF_ERROR_CODE
from ..kernels.access import change_bits, load
from ..kernels.batch import NO_LEVEL
from ..kernels.jit import kernel
from ..kernels.reference import ViewMemory
from ..kernels.reference import translate as reference_translate
from ..kernels.views import View
from ..regime import Regime
from ..walk import Access
from .access import X86Access
from .npt import NestedRegime
from .regime import X86Regime
from .rows import HOST, INDEX, NEVER, WITH_PS, not_taken, pack

U64 = np.uint64
FAULTS = ("", "#PF", "#GP", "#SS", "#VMEXIT(NPF)", "bus error")
_OK, _PF, _GP, _SS, _NPF, _BUS = (U64(k) for k in range(6))
_SLOTS = "fault code code_alt cause level leaf pa gpa host_pa shift rights gpa2 raw1 all any upper bad_level"
SLOTS = tuple(_SLOTS.split())
SLOT = {name: i for i, name in enumerate(SLOTS)}
(
    _FAULT,
    _CODE,
    _ALT,
    _CAUSE,
    _LEVEL,
    _LEAF,
    _PA,
    _GPA,
    _HPA,
    _SHIFT,
    _RIGHTS,
    _GPA2,
    _RAW,
    _ALL,
    _ANY,
    _UPPER,
    _BAD,
) = range(17)
LOG = 64  # a two-dimensional walk sets at most 5 + 6 * 5 words


def _places(names: str) -> tuple[int, ...]:
    return tuple(INDEX[name] for name in names.split())


_USER, _WRITE, _FETCH, _SHADOW, _IMPLICIT, _STACK, _NESTED = _places(
    "user write fetch shadow_stack implicit stack nested"
)
_SIZE, _DEPTH, _ROOT, _VABITS, _PAE, _PSE36, _CMASK = _places("size depth root va_bits pae pse36 c_mask")
_WP, _SMEP, _SMAP, _AC, _PKE, _PKS, _PKRU, _PKRS = _places("wp smep smap ac pke pks pkru pkrs")
_TELLS, _LASS, _LAMU, _LAMS, _LONG = _places("tells_fetch lass lam_user lam_sup long")
# the column of level 1; that of level n stands n - 1 places further
_SH, _IX, _LF, _TR, _LR, _TA, _LA, _PSF = _places(
    "shift1 index1 leaf1 table_reserved1 leaf_reserved1 table_address1 leaf_address1 ps_forbidden1"
)
_0, _1, _2, _3, _4, _7, _8 = (U64(n) for n in (0, 1, 2, 3, 4, 7, 8))
_ONES, _TOP, _32, _63 = U64((1 << 64) - 1), U64(1 << 63), U64(32), U64(63)
_NEVER, _WITH_PS = U64(NEVER), U64(WITH_PS)
_P, _RW, _US, _XD, _A, _D = (U64(entries.PTE[name].mask) for name in ("P", "RW", "US", "XD", "A", "D"))
_PS = U64(entries.PDE["PS"].mask)
_PK_SHIFT, _PK_MASK = U64(entries.PTE["PK"].shift), U64((1 << entries.PTE["PK"].width) - 1)
_HIGH_SHIFT = U64(entries.PDE32_4M["ADDR_39_32"].shift)
_HIGH_MASK = U64((1 << entries.PDE32_4M["ADDR_39_32"].width) - 1)
_E_P, _E_WR, _E_US, _E_RSVD, _E_ID, _E_PK, _E_SS = (
    U64(PF_ERROR_CODE[name].mask) for name in ("P", "WR", "US", "RSVD", "ID", "PK", "SS")
)
_FINAL, _TABLE = U64(NPF_EXITINFO1["FINAL"].mask), U64(NPF_EXITINFO1["TABLE"].mask)
# causes, as in the vector files
_C_P, _C_RSVD, _C_US, _C_RW, _C_XD, _C_SMEP, _C_SMAP, _C_PK, _C_SS = (U64(1 << n) for n in range(9))
_NO_LEVEL = U64(NO_LEVEL)


@kernel
def _entry(view: Any, i: Any, pa: Any, size: Any) -> Any:
    """An entry of 4 or 8 bytes."""
    ok, word = load(view, i, pa & ~_7)
    if size == _4:
        word = word >> ((pa & _4) << _3) & U64(0xFFFF_FFFF)
    return ok, word


@kernel
def _mark(view: Any, i: Any, log: Any, pa: Any, raw: Any, bits: Any) -> Any:
    """Set bits of an entry that are not set yet, and note them."""
    new = bits & ~raw
    if new != _0:
        shifted = new << ((pa & _4) << _3)
        change_bits(view, i, pa & ~_7, shifted, _0)
        n = log[0]
        log[1 + n * _2], log[2 + n * _2] = pa & ~_7, shifted
        log[0] = n + _1


@kernel
def _undo(view: Any, i: Any, log: Any) -> Any:
    n = log[0]
    while n > _0:
        n -= _1
        change_bits(view, i, log[1 + n * _2], _0, log[2 + n * _2])
    log[0] = _0


@kernel
def _forbidden(p: Any, r: Any, o: Any, user: Any, write: Any, fetch: Any, shadow: Any, implicit: Any, s: Any) -> Any:
    """All causes that forbid the access on the path in the scratch array (rules.RULES)."""
    user_page, writable = s[_ALL] & _US != _0, s[_ALL] & _RW != _0
    cause = _0
    if (user and not user_page) or (shadow and not user and user_page):
        cause |= _C_US
    binds = user or p[r, _WP + o] != _0
    if write and not shadow and not writable and binds:
        cause |= _C_RW
    raw = s[_RAW]
    if shadow and not (raw & _D != _0 and raw & _RW == _0 and s[_UPPER] & _RW != _0):
        cause |= _C_SS
    if fetch:
        if s[_ANY] & _XD != _0:
            cause |= _C_XD
        if not user and user_page and p[r, _SMEP + o] != _0:
            cause |= _C_SMEP
        return cause
    if not user and not shadow and user_page and p[r, _SMAP + o] != _0 and (implicit or p[r, _AC + o] == _0):
        cause |= _C_SMAP
    if (p[r, _PKE + o] != _0 and user_page) or (p[r, _PKS + o] != _0 and not user_page):
        keys = p[r, _PKRU + o] if user_page else p[r, _PKRS + o]
        rule = keys >> ((raw >> _PK_SHIFT & _PK_MASK) << _1) & _3
        if rule & _1 != _0 or (rule & _2 != _0 and write and binds):
            cause |= _C_PK
    return cause


@kernel
def _rights(p: Any, r: Any, o: Any, s: Any) -> Any:
    """The six plain accesses (rules.rights)."""
    rights = _0
    for k in range(6):
        kind = k % 3
        if _forbidden(p, r, o, k >= 3, kind == 1, kind == 2, False, False, s) == _0:
            rights |= _1 << U64(k)
    return rights


@kernel
def _code(p: Any, r: Any, o: Any, user: Any, write: Any, fetch: Any, shadow: Any, cause: Any) -> Any:
    """The #PF error code (rules.error_code)."""
    code = _0
    if cause != _C_P:
        code |= _E_P
    if write:
        code |= _E_WR
    if user:
        code |= _E_US
    if cause == _C_RSVD:
        code |= _E_RSVD
    if fetch and p[r, _TELLS + o] != _0:
        code |= _E_ID
    if cause & _C_PK != _0:
        code |= _E_PK
    if shadow:
        code |= _E_SS
    return code


@kernel
def _decode(p: Any, r: Any, o: Any, level: Any, raw: Any) -> Any:
    """What an entry is: cause that it cannot be used (0, not present, reserved), whether a leaf, and its address."""
    k = o + level - 1
    rule = p[r, _LF + k]
    leaf = rule > _WITH_PS or (rule == _WITH_PS and raw & _PS != _0)
    cause = _0
    reserved = p[r, _LR + k] if leaf else p[r, _TR + k]
    if raw & _P == _0:
        cause = _C_P
    elif raw & reserved != _0 or (p[r, _PSF + k] != _0 and raw & _PS != _0):
        cause = _C_RSVD
    address = raw & (p[r, _LA + k] if leaf else p[r, _TA + k]) & ~p[r, _CMASK + o]
    if leaf and level == 2 and p[r, _PSE36 + o] != _0:
        address |= (raw >> _HIGH_SHIFT & _HIGH_MASK) << _32
    return cause, leaf, address


@kernel
def _down(s: Any, raw: Any) -> Any:
    s[_UPPER] = s[_ALL]
    s[_ALL] &= raw
    s[_ANY] |= raw
    s[_RAW] = raw


@kernel
def _host(
    view: Any, i: Any, s: Any, log: Any, p: Any, r: Any, gpa: Any, write: Any, fetch: Any, shadow: Any, kind: Any
) -> Any:
    """Walk the host's tables for a guest-physical address; False on a nested page fault or a bus error."""
    upper, all_, any_, raw_ = s[_UPPER], s[_ALL], s[_ANY], s[_RAW]
    s[_UPPER], s[_ALL], s[_ANY] = _ONES, _ONES, _0
    at, cause, level, leaf, address, raw = p[r, _ROOT + HOST], _0, 5, False, _0, _0
    used, raws, count = np.zeros(5, np.uint64), np.zeros(5, np.uint64), 0
    for level in range(int(p[r, _DEPTH + HOST]), 0, -1):
        k = HOST + level - 1
        pa = at + ((gpa >> p[r, _SH + k] & p[r, _IX + k]) << _3)
        ok, raw = load(view, i, pa)
        if not ok:
            s[_FAULT] = _BUS
            return False
        cause, leaf, address = _decode(p, r, HOST, level, raw)
        if cause != _0:
            break
        _down(s, raw)
        used[count], raws[count] = pa, raw
        count += 1
        if leaf:
            break
        at = address
    if cause == _0:
        cause = _forbidden(p, r, HOST, True, write, fetch, False, False, s)
    s[_UPPER], s[_ALL], s[_ANY], s[_RAW] = upper, all_, any_, raw_
    if cause != _0:
        # nested faults tell no key
        code = _code(p, r, HOST, True, write, fetch, shadow, cause & ~_C_PK if cause != _C_PK else _C_RW)
        s[_FAULT], s[_GPA2], s[_CAUSE] = _NPF, gpa, cause
        s[_CODE], s[_ALT] = code | kind, code | kind | (_E_ID if fetch else _0)
        s[_BAD] = U64(level)
        return False
    for j in range(count):
        _mark(view, i, log, used[j], raws[j], _A | (_D if write and j == count - 1 else _0))
    size = p[r, _SH + HOST + level - 1]
    s[_SHIFT] = size
    s[_HPA] = address | gpa & ((_1 << size) - _1)
    return True


@kernel
def _linear(p: Any, r: Any, s: Any, va: Any) -> Any:
    """LAM, the canonical check, LASS (linear.check): the address to translate, and whether the walk may begin."""
    if p[r, _LONG] == _0:
        return va & U64(0xFFFF_FFFF), True
    top, good = va & _TOP != _0, True
    width = p[r, _LAMS] if top else p[r, _LAMU]
    if p[r, _FETCH] != _0 or p[r, _IMPLICIT] != _0:
        width = _0
    if width != _0:
        metadata = (_TOP - _1) >> width << width
        good = (va >> (width - _1) & _1 != _0) == top
        if good:
            va = va | metadata if top else va & ~metadata
    half = _1 << (p[r, _VABITS] - _1)
    good = good and (va < half or va >= ~half + _1)
    if good and p[r, _LASS] != _0:
        if p[r, _USER] != _0:
            good = not top
        elif not top:
            enforced = p[r, _SMAP] != _0 and (p[r, _IMPLICIT] != _0 or p[r, _AC] == _0)
            good = not (p[r, _FETCH] != _0 or enforced)
    return va, good


@kernel
def _page_fault(p: Any, r: Any, s: Any, level: Any, cause: Any) -> Any:
    user, write, fetch = p[r, _USER] != _0, p[r, _WRITE] != _0, p[r, _FETCH] != _0
    s[_FAULT], s[_CAUSE], s[_LEVEL] = _PF, cause, U64(level)
    s[_CODE] = _code(p, r, 0, user, write, fetch, p[r, _SHADOW] != _0, cause)


@kernel
def _walk(view: Any, i: Any, s: Any, log: Any, p: Any, r: Any, va: Any) -> Any:
    """From a linear address to the end; the scratch array says how it went."""
    s[:] = _0
    s[_LEVEL], s[_UPPER], s[_ALL] = _NO_LEVEL, _ONES, _ONES
    va, good = _linear(p, r, s, va)
    if not good:
        s[_FAULT] = _SS if p[r, _STACK] != _0 else _GP
        return
    nested, size, at = p[r, _NESTED] != _0, p[r, _SIZE], p[r, _ROOT]
    used, raws, count = np.zeros(5, np.uint64), np.zeros(5, np.uint64), 0
    level, address = 1, _0
    for level in range(int(p[r, _DEPTH]), 0, -1):
        k = level - 1
        pa = at + (va >> p[r, _SH + k] & p[r, _IX + k]) * size
        if nested:
            if not _host(view, i, s, log, p, r, pa, True, False, False, _TABLE):
                return
            pa = s[_HPA]
        ok, raw = _entry(view, i, pa, size)
        if not ok:
            s[_FAULT], s[_LEVEL] = _BUS, _NO_LEVEL
            return
        cause, leaf, address = _decode(p, r, 0, level, raw)
        if cause != _0:
            _page_fault(p, r, s, level, cause)
            if cause == _C_RSVD and p[r, _PAE] != _0 and level == 3 and not nested:
                s[_FAULT], s[_CODE] = _GP, _0  # PDPTEs are checked when CR3 is loaded
            return
        if not (p[r, _PAE] != _0 and level == 3):
            _down(s, raw)
            used[count], raws[count] = pa, raw
            count += 1
        if leaf:
            break
        at = address
    s[_LEAF], s[_LEVEL] = U64(level), U64(level)
    user, write, fetch = p[r, _USER] != _0, p[r, _WRITE] != _0, p[r, _FETCH] != _0
    shadow = p[r, _SHADOW] != _0
    cause = _forbidden(p, r, 0, user, write, fetch, shadow, p[r, _IMPLICIT] != _0, s)
    if cause != _0:
        _page_fault(p, r, s, level, cause)
        return
    guest_shift = p[r, _SH + level - 1]
    s[_GPA] = address | va & ((_1 << guest_shift) - _1)
    s[_PA], s[_SHIFT] = s[_GPA], guest_shift
    if nested:
        if not _host(view, i, s, log, p, r, s[_GPA], write, fetch, shadow, _FINAL):
            return
        s[_PA], s[_SHIFT] = s[_HPA], min(s[_SHIFT], guest_shift)
    s[_RIGHTS] = _rights(p, r, 0, s)
    for j in range(count):
        ok, raw = _entry(view, i, used[j], size)
        _mark(view, i, log, used[j], raw, _A | (_D if write and j == count - 1 else _0))


@kernel
def translate_cases(view: Any, p: Any, vas: Any, taken: Any, out: Any) -> Any:
    """Translate case i with row i for every i that is taken, bits written; `out` receives the scratch arrays."""
    s, log = np.zeros(len(SLOTS), np.uint64), np.zeros(1 + 2 * LOG, np.uint64)
    for i in range(len(vas)):
        if taken[i]:
            log[0] = _0
            _walk(view, U64(i), s, log, p, i, vas[i])
            if s[_FAULT] != _0:
                _undo(view, U64(i), log)
            out[i, :] = s


@kernel
def _translate_all(view: Any, p: Any, vas: Any, commit: Any, pa: Any, info: Any) -> Any:
    s, log = np.zeros(len(SLOTS), np.uint64), np.zeros(1 + 2 * LOG, np.uint64)
    for k in range(len(vas)):
        log[0] = _0
        _walk(view, _0, s, log, p, 0, vas[k])
        fault = s[_FAULT]
        if fault != _0 or not commit:
            _undo(view, _0, log)
        if fault != _0:
            pa[k] = _0
            level = s[_LEVEL] if fault != _NPF else s[_BAD]
            info[k] = (level if fault != _BUS else _NO_LEVEL) << U64(16) | fault << U64(24) | s[_CODE] << _32
        else:
            pa[k] = s[_PA]
            info[k] = s[_RIGHTS] | s[_SHIFT] << _8 | s[_LEVEL] << U64(16)


def translate(
    view: View,
    regime: Regime,
    vas: NDArray[np.uint64],
    access: Access,
    update: bool,
    pa: NDArray[np.uint64],
    info: NDArray[np.uint64],
) -> None:
    """Fill `pa` and `info` (see mmu.kernels.batch) for `vas`; `regime` is an X86Regime or a NestedRegime."""
    if not isinstance(regime, X86Regime | NestedRegime):
        raise PtwalkError("the x86 kernel translates for x86 regimes only")
    asked = X86Access.of(access)
    if why := not_taken(regime):
        assert isinstance(regime, X86Regime), why
        reference_translate(ViewMemory(view), regime, vas.tolist(), asked, update, FAULTS, pa, info)
        return
    _translate_all(view, np.array([pack(regime, asked)], np.uint64), vas, update, pa, info)
