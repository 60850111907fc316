"""Parameter rows for the compiled walker: a regime and an access as unsigned 64-bit integers.

`COLUMNS` names the columns. Those of the host regime of nested paging repeat the guest's with an `h_` prefix, so one
offset leads from the one to the other. Columns of a level end in its number, 1 (PT) to 5 (PML5).
"""

from __future__ import annotations

from ...arch.x86_64 import entries
from .access import X86Access
from .modes import OFF, PAE
from .npt import NestedRegime
from .regime import X86Regime

NEVER, WITH_PS, ALWAYS = 0, 1, 2  # when an entry of a level is a leaf
_PER_LEVEL = "shift index leaf table_reserved leaf_reserved table_address leaf_address ps_forbidden"
_REGIME = (
    """size depth root va_bits pae pse36 c_mask wp smep smap ac pke pks pkru pkrs tells_fetch lass lam_user lam_sup
    long """
    + " ".join(f"{name}{level}" for name in _PER_LEVEL.split() for level in range(1, 6))
).split()
_ACCESS = ["user", "write", "fetch", "shadow_stack", "implicit", "stack", "nested"]
COLUMNS = (*_ACCESS, *_REGIME, *(f"h_{name}" for name in _REGIME))
INDEX = {name: i for i, name in enumerate(COLUMNS)}
HOST = len(_REGIME)  # from a column of the guest to that of the host


def not_taken(regime: X86Regime | NestedRegime) -> str:
    """Why the compiled walker leaves a regime to the reference walker; nothing where it takes it."""
    if isinstance(regime, NestedRegime) and regime.gmet:
        return "GMET"
    for part in (regime.guest, regime.host) if isinstance(regime, NestedRegime) else (regime,):
        if part.mode is OFF:
            return "paging is off"
        if part.hlat_root is not None:
            return "HLAT"
        if part.profile.name not in ("architecture", "amd"):
            return f"profile {part.profile.name}"
    return ""


def pack(regime: X86Regime | NestedRegime, access: X86Access) -> list[int]:
    """The parameter row for one regime and one access."""
    nested = isinstance(regime, NestedRegime)
    values = {
        "user": int(access.is_user),
        "write": int(access.is_write),
        "fetch": int(access.is_fetch),
        "shadow_stack": int(access.shadow_stack),
        "implicit": int(access.implicit),
        "stack": int(access.stack),
        "nested": int(nested),
    }
    if isinstance(regime, NestedRegime):
        values |= _regime(regime.guest)
        values |= {f"h_{name}": value for name, value in _regime(regime.host).items()}
    else:
        values |= _regime(regime)
    return [values.get(name, 0) for name in COLUMNS]


def _regime(regime: X86Regime) -> dict[str, int]:
    on, mode, masks = regime.on, regime.mode, regime.reserved_masks
    values = {
        "size": mode.entry_size,
        "depth": len(mode.levels),
        "root": regime.root,
        "va_bits": mode.va_bits,
        "pae": int(mode is PAE),
        "pse36": int(mode.leaves.get(2) is entries.PDE32_4M),
        "c_mask": regime.stolen,
        "wp": int("WP" in on),
        "smep": int("SMEP" in on),
        "smap": int("SMAP" in on),
        "ac": int("AC" in on),
        "pke": int("PKE" in on and regime.is_long),
        "pks": int("PKS" in on and regime.is_long),
        "pkru": regime.registers["PKRU"],
        "pkrs": regime.registers["PKRS"],
        "tells_fetch": int("SMEP" in on or ("NXE" in on and mode.entry_size == 8)),
        "lass": int("LASS" in on and regime.is_long),
        "lam_user": (57 if "LAM_U57" in on else 48 if "LAM_U48" in on else 0) if regime.is_long else 0,
        "lam_sup": mode.va_bits if "LAM_SUP" in on and regime.is_long else 0,
        "long": int(regime.is_long),
    }
    for level in mode.levels:
        n = level.number
        table, leaf = mode.tables.get(n), mode.leaves.get(n)
        values |= {f"shift{n}": level.shift, f"index{n}": level.entries - 1}
        values[f"leaf{n}"] = ALWAYS if n == 1 else WITH_PS if level.leaf else NEVER
        values[f"ps_forbidden{n}"] = int(regime.is_long and n > 1 and not level.leaf)
        if table is not None:
            values |= {f"table_reserved{n}": masks[table.name], f"table_address{n}": table.address_mask}
        if leaf is not None:
            values |= {f"leaf_reserved{n}": masks[leaf.name], f"leaf_address{n}": leaf.address_mask}
    return values
