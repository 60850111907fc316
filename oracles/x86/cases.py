"""Random cases of long-mode paging, most of them with a way to a leaf, many with something hostile on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from . import protocol as p

P, RW, US, PS, XD = 1, 2, 4, 1 << 7, 1 << 63
STATE_LIFE = 12  # cases made with one processor state


@dataclass(frozen=True)
class Setup:
    """One boot of an emulator: the depth of its tables, its MAXPHYADDR, and what it implements of CR4."""

    depth: int
    maxphyaddr: int
    cr4: tuple[int, ...] = (p.SMEP, p.SMAP, p.PKE, p.PKS)
    free_key_0: bool = False  # PKRU binds the supervisor too: the harness lives on key 0

    @property
    def name(self) -> str:
        return f"{self.depth} levels, MAXPHYADDR {self.maxphyaddr}"


def make_state(rng: Random, setup: Setup) -> p.State:
    """Random registers; PKRS never binds key 0, which the harness itself uses."""
    cr4 = sum(bit for bit in setup.cr4 if rng.random() < 0.5)
    keys = rng.choice((0, rng.getrandbits(32), rng.getrandbits(32) & rng.getrandbits(32)))
    registers = {
        "CR0": p.CR0 | (p.CR0_WP if rng.random() < 0.7 else 0),
        "CR3": rng.choice(p.ROOTS) | rng.choice((0, 0, 8, 16, 24)),
        "CR4": p.CR4 | cr4 | (p.LA57 if setup.depth == 5 else 0),
        "EFER": p.EFER | (p.NXE if rng.random() < 0.75 else 0),
        "RFLAGS": 2 | (p.AC if rng.random() < 0.5 else 0),
        "PKRU": keys & ~3 if setup.free_key_0 else keys,
        "PKRS": rng.getrandbits(32) & (rng.getrandbits(32) | 0xFF00) & ~3,
    }
    return p.State(registers, setup.maxphyaddr)


def _page(rng: Random, leaf: int) -> int:
    """Where a leaf of this level leads: among the cells; the one 1-GByte page with cells is the first."""
    shift = 3 + 9 * leaf
    return 0 if leaf == 3 else rng.randrange(p.CELLS.start, p.CELLS.stop) >> shift << shift


def _address(rng: Random, depth: int, leaf: int, kind: int) -> int:
    shift, width = 3 + 9 * leaf, 12 + 9 * depth
    offset = rng.randrange(p.CELLS.start, p.CELLS.stop) if leaf == 3 else rng.getrandbits(shift)
    va = rng.randrange(1, 512) << width - 9 | rng.getrandbits(width - 9) >> shift << shift | offset & ~7
    if va >> width - 1 & 1:
        va |= (1 << 64) - (1 << width)
    if rng.random() < 0.03 and kind != p.DESCRIPTOR:  # LLDT itself refuses such a base
        strange = va ^ 1 << rng.randrange(width - 1, 64)
        return strange if strange >> width - 9 & 511 else va  # slot 0 is the harness's
    return va


def _entry(rng: Random, setup: Setup, level: int, address: int, leaf: int, hostile: float) -> int:
    raw = address | P | rng.getrandbits(11) << 52 | rng.getrandbits(9) << 3 & ~PS
    raw |= (RW if rng.random() < 0.82 else 0) | (US if rng.random() < 0.75 else 0)
    raw |= XD if rng.random() < 0.06 else 0
    if level == leaf and level > 1:
        raw |= PS | rng.getrandbits(1) << 12
    elif level == 1:
        raw |= rng.getrandbits(1) << 7
    if rng.random() < hostile:
        raw = _spoil(rng, setup, raw, level, is_leaf=level == leaf)
    return raw


def _spoil(rng: Random, setup: Setup, raw: int, level: int, *, is_leaf: bool) -> int:
    choice = rng.randrange(6)
    if choice == 0:
        return raw & ~P
    if choice == 1:
        return raw | XD
    if choice == 2 and setup.maxphyaddr < 52:
        return raw | 1 << rng.randrange(setup.maxphyaddr, 52)
    if choice == 3 and is_leaf and level > 1:
        return raw | 1 << rng.randrange(13, 3 + 9 * level)
    if choice == 4 and level > 3:
        return raw | PS
    if choice == 5:
        return rng.getrandbits(64) & ~P
    return raw ^ rng.choice((P, RW, US))


def make_case(rng: Random, setup: Setup, state: p.State) -> p.Case:
    """One random case; now and then a table serves at two levels."""
    kind = rng.choices(range(5), (32, 30, 24, 9, 5))[0]
    leaf = rng.choices((1, 2, 3), (5, 4, 2))[0]
    case = p.Case(state, _address(rng, setup.depth, leaf, kind), kind, rng.choice((0, 3)))
    table, hostile = state.registers["CR3"] & ~0xFFF, rng.choice((0, 0.05, 0.25))
    page = _page(rng, leaf)
    for level in range(setup.depth, leaf - 1, -1):
        at = table + (case.va >> 3 + 9 * level & 511) * 8
        again = level < setup.depth and rng.random() < 0.02
        below = page if level == leaf else table if again else rng.choice(p.TABLES)
        raw = case.words.setdefault(at, _entry(rng, setup, level, below, leaf, hostile))
        table = raw & 0xF_FFFF_F000
        if table not in p.TABLES:
            break
    return case


def cases(rng: Random, setup: Setup) -> Iterator[p.Case]:
    """Endless cases, a new processor state every few."""
    while True:
        state = make_state(rng, setup)
        for _ in range(STATE_LIFE):
            yield make_case(rng, setup, state)
