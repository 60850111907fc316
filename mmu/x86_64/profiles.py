"""Whose behaviour a walk follows: the architecture's, a vendor's that fixes more, or an emulator's that differs.

Where the manuals leave freedom a profile chooses; `walk.X86Fault.allowed` names what else the architecture permits. The
emulators' deviations were measured on the golden vectors; `mmu.x86_64.conform` compares them with the raw answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...arch.errors import InputError

NONE, TABLES = "none", "tables"


@dataclass(frozen=True, slots=True)
class Profile:
    """One behaviour.

    `a_on_fault` says which entries of a faulting walk get their accessed bit: `none`, or `tables`, those above the
    entry to blame (Intel SDM volume 3A 5.8 allows it); with `pdpte_a_first` a 1-GByte leaf gets it too. Nested
    tables are left alone. `implicit_ac` says at which CPLs RFLAGS.AC wrongly lifts SMAP for implicit accesses.
    `vendor` is the default of that feature.
    """

    name: str
    text: str
    vendor: str = "intel"
    a_on_fault: str = NONE
    pdpte_a_first: bool = False
    reserved_sets_p: bool = True
    rmw_is_load_then_store: bool = False
    pkrs_told_to_user: bool = True
    pkru_by_cpl: bool = False
    pdptes_with_cr3: bool = True
    pdpte_accessed: bool = False
    implicit_ac: tuple[int, ...] = ()
    nested_fetch_always_told: bool = False
    nested_pdpte_first: bool = False
    always_gbpages: bool = False


PROFILES = {
    p.name: p
    for p in (
        Profile("architecture", "the manuals; a faulting walk leaves every entry as it was"),
        Profile("intel", "Intel SDM volume 3A 5.8: A of the tables walked is set by a fault too", a_on_fault=TABLES),
        Profile("amd", "AMD APM volume 2: bit 8 of upper entries is reserved", vendor="amd"),
        Profile(
            "qemu-7.2", "QEMU 7.2 TCG", a_on_fault=TABLES, pdpte_a_first=True, reserved_sets_p=False,
            rmw_is_load_then_store=True, pkrs_told_to_user=False, pdptes_with_cr3=False, pdpte_accessed=True,
            implicit_ac=(0,), always_gbpages=True,
        ),
        Profile(
            "unicorn-2.1.4", "unicorn 2.1.4, an older QEMU", a_on_fault=TABLES, pdpte_a_first=True,
            rmw_is_load_then_store=True, pkrs_told_to_user=False, pdptes_with_cr3=False,
        ),
        Profile(
            "bochs-2.7", "Bochs 2.7", pkru_by_cpl=True, implicit_ac=(0, 3), nested_fetch_always_told=True,
            nested_pdpte_first=True,
        ),
    )
}  # fmt: skip


def profile(name: str) -> Profile:
    """The profile of this name; InputError lists those there are.

    >>> profile("amd").vendor
    'amd'
    """
    if name not in PROFILES:
        raise InputError(f"no such profile (there are: {', '.join(PROFILES)})", field="profile", value=name)
    return PROFILES[name]
