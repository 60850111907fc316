"""EPT beside NPT, which emulators confirm: the same second stage written in both formats has to lead to the same place.

With A and D on, EPT treats every access to a guest's table as a write, as NPT does; a page that NPT opens to users for
reading, writing and fetching is R, W and X. Random guests, hostile tables of theirs included.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ptwalk.arch.x86_64.ept import EPT_QUALIFICATION
from ptwalk.arch.x86_64.faults import NPF_EXITINFO1
from ptwalk.mmu.memory import PhysicalMemory
from ptwalk.mmu.walk import Fault, outcome
from ptwalk.mmu.x86_64 import campaign
from ptwalk.mmu.x86_64.campaign import HOST_TABLES, SINGLE, TABLES
from ptwalk.mmu.x86_64.ept import Ept, EptRegime
from ptwalk.mmu.x86_64.npt import NestedRegime
from ptwalk.mmu.x86_64.regime import X86Regime

SEED, ROUNDS, WALKS = 20261123, 25, 100
P, RW, US, PS, XD = 1, 2, 4, 1 << 7, 1 << 63
R, W, X, WB, AD = 1, 2, 4, 6, 1 << 6


def both_formats(rng: random.Random) -> tuple[bytes, bytes]:
    """Host tables as NPT and as EPT: every level a frame, each entry with rights of its own."""
    npt, ept = bytearray(), bytearray()
    for level in range(5, 0, -1):
        for index in range(512):
            present, write, no_execute = rng.random() < 0.99, rng.random() < 0.97, rng.random() < 0.05
            target = HOST_TABLES[6 - level] if level > 1 else TABLES[(index - 1) % len(TABLES)]
            large = level == 2 and rng.random() < 0.02
            target = 0 if large else target
            nested = target | US | P * present | RW * write | XD * no_execute | PS * large
            rights = R | W * write | X * (not no_execute) if present else 0
            leaf = WB << 3 if level == 1 or large else 0
            npt += nested.to_bytes(8, "little")
            ept += (target | rights | leaf * present | PS * large).to_bytes(8, "little")
    return bytes(npt), bytes(ept)


def memory(content: bytes) -> PhysicalMemory:
    ram = PhysicalMemory()
    ram.add_bytes(0, bytes(TABLES[0]) + content)
    ram.add_ram(TABLES[0] + len(content), (2 << 20) - TABLES[0] - len(content))  # what a large page reaches
    return ram


def same(nested: object, extended: object) -> bool:
    """Whether two faults of the second stage tell the same."""
    if not isinstance(nested, Fault) or not isinstance(extended, Fault):
        return False
    info, told = NPF_EXITINFO1.decode(nested.code), EPT_QUALIFICATION.decode(extended.code)
    gpa = (nested.syndrome["EXITINFO2"], extended.syndrome["GUEST_PHYSICAL_ADDRESS"])
    names = (("WR", "WRITE"), ("ID", "FETCH"), ("FINAL", "FINAL"), ("P", "R"))
    return nested.level == extended.level and gpa[0] == gpa[1] and all(info[a] == told[b] for a, b in names)


@pytest.mark.parametrize("depth", [4, 5])
@pytest.mark.parametrize("mode", [mode for mode in SINGLE if mode != "PAE"])
def test_both_formats_lead_to_the_same_place(mode: str, depth: int) -> None:
    outcomes: Counter[str] = Counter()
    print(f"seed {SEED}")
    for number in range(ROUNDS):
        rng = random.Random(f"{SEED}{mode}{depth}{number}")
        guest = X86Regime.from_registers(campaign.registers(rng, mode), {"maxphyaddr": 40})
        tables = campaign.image(rng, guest.mode.entry_size, pae=False)
        npt, ept = both_formats(rng)
        root = HOST_TABLES[5 - depth]
        registers = {"CR0": 0x80010001, "CR3": root, "CR4": 0x1020 if depth == 5 else 0x20, "EFER": 0xD00}
        host = X86Regime.from_registers(registers, {"maxphyaddr": 40})
        extended = EptRegime(guest, Ept(root | depth - 1 << 3 | WB | AD, maxphyaddr=40))
        access = campaign.access(rng)
        first, second = memory(tables + npt), memory(tables + ept)
        for va in campaign.addresses(rng, mode, WALKS):
            a = outcome(NestedRegime(guest, host).walk(first, va, access, update=True))
            b = outcome(extended.walk(second, va, access, update=True))
            where = (mode, depth, number, hex(va), a, b)
            if isinstance(a, Fault) and a.stage == 2:
                assert b.name == "EPT violation", where
                assert same(a, b), where
            elif isinstance(a, Fault):
                assert (b.name, b.code, b.level, b.entry_pa) == (a.name, a.code, a.level, a.entry_pa), where
            else:
                assert (b.pa, b.rights, b.level, b.page_shift) == (a.pa, a.rights, a.level, a.page_shift), where
            outcomes[getattr(a, "name", "translated")] += 1
        assert first.read(TABLES[0], len(tables)) == second.read(TABLES[0], len(tables))
    assert min(outcomes[name] for name in ("translated", "#PF", "#VMEXIT(NPF)")) > 20, outcomes
