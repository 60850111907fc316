"""Random cases of the EL1&0 regime, one or two stages: most have a way to a leaf, many something hostile on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from ptwalk.arch.arm64.registers import LAYOUTS

from . import protocol as p

VALID, TABLE, AF, CONTIGUOUS = 1, 3, 1 << 10, 1 << 52
STATE_LIFE = 8
_TG0, _TG1 = {12: 0, 16: 1, 14: 2}, {12: 2, 16: 3, 14: 1}
_IPS = (32, 36, 40, 42, 44, 48, 52)
_SCTLR = 0x30D0_1805  # RES1 bits, SPAN, M, C, I
_MAIR = (0x00, 0x04, 0x08, 0x0C, 0x44, 0xFF, 0xBB, 0x4F, 0xF4)
_ROOT2 = (0x60E0_0000, 0x60F0_0000)
_FRAMES = range(p.TABLES.start, _ROOT2[0], p.FRAME)
_HARNESS_BITS = 39


@dataclass(frozen=True)
class Tree:
    """Geometry of one tree of tables: granule and input size in bits, level and address of its start table."""

    granule: int
    size: int
    start: int
    root: int
    wide: bool  # 52-bit descriptors by TCR.DS or VTCR.DS

    @property
    def stride(self) -> int:
        return self.granule - 3

    def shift(self, level: int) -> int:
        """The size in bits of what a leaf of this level maps."""
        return self.granule + (3 - level) * self.stride

    def index(self, address: int, level: int) -> int:
        """The index at this level; the start level takes all bits that are left."""
        width = self.size - self.shift(level) if level == self.start else self.stride
        return address >> self.shift(level) & (1 << max(width, 0)) - 1

    def leaf_levels(self) -> list[int]:
        """The levels at which a leaf may stand."""
        first = {12: 0 if self.wide else 1, 14: 1 if self.wide else 2, 16: 1}[self.granule]
        return [level for level in (first, *range(first + 1, 4)) if level >= self.start]


@dataclass
class State:
    """The processor for some cases: registers, the tree under test, stage 2's tree, and where the harness is seen."""

    registers: dict[str, int]
    first: Tree
    upper: bool
    second: Tree | None
    output_bits: int
    real: bool
    harness_va: int
    hostile: float
    second_words: dict[int, int] = field(default_factory=dict)


def _start_level(granule: int, size: int) -> int:
    return max(-1, min(3, 3 - (size - 1 - granule) // (granule - 3)))


def make_state(rng: Random) -> State:
    """Random registers; for real accesses the half that is not under test maps the harness."""
    granule, upper, real = rng.choice((12, 14, 16)), rng.random() < 0.5, rng.random() < 0.5
    wide = rng.random() < 0.35
    smallest = 12 if wide or granule == 16 else 16
    tsz = rng.choice((smallest, 16, 25, rng.randint(smallest, 39), rng.randint(smallest, 47)))
    if rng.random() < 0.03:
        tsz = rng.randrange(64)
    ips = rng.choice((6, 5, rng.randrange(7)))
    registers = _registers(rng, granule, upper, real, tsz, ips, wide)
    root = registers["TTBR1_EL1" if upper else "TTBR0_EL1"] & 0xFFFF_FFFF_0000
    size = 64 - tsz
    first = Tree(granule, size, _start_level(granule, size), root, wide and granule != 16)
    bits = min(_IPS[min(ips, 6)], 48)
    harness_va = 0 if upper else (1 << 64) - (1 << _HARNESS_BITS)
    state = State(registers, first, upper, None, bits, real, harness_va, rng.choice((0, 0.04, 0.15)))
    if rng.random() < 0.4:
        _add_stage2(rng, state)
    return state


def _registers(rng: Random, granule: int, upper: bool, real: bool, tsz: int, ips: int, wide: bool) -> dict[str, int]:
    tested, other = ("1", "0") if upper else ("0", "1")
    tg = {"0": _TG0, "1": _TG1}
    fields = {f"T{tested}SZ": tsz, f"TG{tested}": tg[tested][granule], "IPS": ips, "DS": int(wide)}
    fields |= {f"T{other}SZ": 64 - _HARNESS_BITS, f"TG{other}": tg[other][12]}
    for name, chance in (("HPD", 0.3), ("TBI", 0.3), ("TBID", 0.3), ("E0PD", 0.06), ("EPD", 0.04)):
        fields[name + tested] = int(rng.random() < chance)
        fields[name + other] = int(name in ("HPD", "TBI") and rng.random() < 0.3)
    fields |= {"HA": int(rng.random() < 0.5), "HD": int(rng.random() < 0.5), "SH0": 3, "SH1": rng.choice((0, 2, 3))}
    roots = {name: rng.choice(_FRAMES) | rng.getrandbits(16) << 48 for name in ("TTBR0_EL1", "TTBR1_EL1")}
    if real:
        roots[f"TTBR{other}_EL1"] = p.HARNESS
    mair = [*rng.choices(_MAIR, (1, 1, 1, 1, 2, 6, 1, 1, 1), k=7), 0xFF]
    return roots | {
        "SCTLR_EL1": _SCTLR | int(rng.random() < 0.2) << 19,  # WXN
        "TCR_EL1": LAYOUTS["TCR_EL1"].build(**fields),
        "MAIR_EL1": int.from_bytes(mair, "little"),
        "HCR_EL2": 1 << 31,  # RW
        "VTCR_EL2": 0,
        "VTTBR_EL2": 0,
    }


def _add_stage2(rng: Random, state: State) -> None:
    granule, wide, real = rng.choice((12, 14, 16)), rng.random() < 0.3, state.real
    size = rng.choice((40, 44, 48, rng.randint(32, 48)))
    start = _start_level(granule, size)
    top = size - granule - (3 - start) * (granule - 3)
    if top <= 4 and start < 3 and (rng.random() < 0.5 or (granule == 14 and start == 0 and (real or not wide))):
        start += 1  # concatenated tables
    ps = rng.choice((6, 5, 5, 5 if real else rng.randrange(7)))  # QEMU limits the input size by PS
    sl = 2 - start if granule == 12 and start < 3 else 3 - start if granule != 12 else 3
    if rng.random() < 0.02 and not real:
        sl = rng.randrange(4)
    flags = {"HA": int(rng.random() < 0.4), "HD": int(rng.random() < 0.4), "DS": int(wide), "SH0": 3}
    vtcr = LAYOUTS["VTCR_EL2"].build(T0SZ=64 - size, SL0=sl & 3, TG0=_TG0[granule], PS=ps, **flags)
    extra = {"PTW": int(rng.random() < 0.2), "FWB": int(rng.random() < 0.3)}
    root = rng.choice(_ROOT2)
    state.registers |= {
        "HCR_EL2": LAYOUTS["HCR_EL2"].build(VM=1, RW=1, **extra),
        "VTCR_EL2": vtcr | 1 << 31,
        "VTTBR_EL2": root,
    }
    state.second = Tree(granule, size, start, root, wide and granule != 16)
    state.output_bits = min(state.output_bits, size)
    if real:
        leaf = max(2, start)
        entry = _stage2_leaf(state, p.HARNESS, leaf)
        _map(state.second, state.second_words, p.HARNESS, leaf, entry, lambda: 0x60D0_0000)


def _stage2_leaf(state: State, pa: int, level: int) -> int:
    """A leaf that allows everything."""
    tree = state.second
    assert tree is not None
    fwb = LAYOUTS["HCR_EL2"]["FWB"].get(state.registers["HCR_EL2"])
    base = pa >> tree.shift(level) << tree.shift(level)
    return base | (3 if level == 3 else 1) | AF | 3 << 6 | (6 if fwb else 15) << 2


def _stage2_attributes(rng: Random, state: State) -> int:
    """S2AP and a MemAttr that is not reserved."""
    fwb = LAYOUTS["HCR_EL2"]["FWB"].get(state.registers["HCR_EL2"])
    kinds = (0, 1, 2, 3, 5, 6, 7) if fwb else (0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15)
    return rng.choice(kinds) << 2 | rng.getrandbits(2) << 6


def _map(
    tree: Tree, words: dict[int, int], address: int, leaf: int, entry: int, frame: Callable[[], int]
) -> None:  # fmt: skip
    """Put `entry` at the leaf level of `address`, with tables above it where there are none."""
    table = tree.root
    for level in range(tree.start, leaf):
        at = table + tree.index(address, level) * 8
        raw = words.setdefault(at, frame() | TABLE)
        if raw & TABLE != TABLE:
            return
        table = raw & 0xFFFF_FFFF_F000
    words.setdefault(table + tree.index(address, leaf) * 8, entry)


def _spoil(rng: Random, raw: int, tree: Tree, level: int) -> int:
    """One hostile change of a descriptor; no block at level -1, where QEMU 7.2 ends in a failed assertion."""
    choice = rng.randrange(7)
    if choice == 0 or (choice == 1 and level < 0):
        return raw & ~VALID
    if choice == 1:
        return raw ^ 2
    if choice == 2:
        return raw | 1 << rng.randrange(32, 48)
    if choice == 3:
        high = range(12, 16) if tree.granule == 16 else (8, 9, 48, 49) if tree.wide else (48, 49)
        return raw | 1 << rng.choice(high)
    if choice == 4:
        return raw & ~AF
    if choice == 5:
        return raw | CONTIGUOUS
    return raw | 1 << rng.randrange(tree.granule, max(tree.shift(level), tree.granule + 1))


def _second_address(rng: Random, state: State, words: dict[int, int], pa: int) -> int:
    """The intermediate address by which stage 1 names `pa`, mapped in stage 2's tables."""
    tree = state.second
    if tree is None:
        return pa
    leaf = rng.choice([level for level in tree.leaf_levels() if tree.shift(level) <= 30] or [3])
    shift = tree.shift(leaf)
    ipa = rng.getrandbits(state.output_bits) >> shift << shift | pa & (1 << shift) - 1
    entry = _stage2_leaf(state, pa, leaf) | rng.getrandbits(4) << 55 | rng.getrandbits(1) << 51
    entry |= 0 if tree.wide else rng.choice((0, 2, 3)) << 8
    if rng.random() < 0.1:
        entry = entry & ~(0x3F << 2) | _stage2_attributes(rng, state)
    if rng.random() < 0.1:
        entry |= rng.getrandbits(2) << 53
    if rng.random() < 0.06:
        entry &= ~AF
    if rng.random() < state.hostile / 4:
        entry = _spoil(rng, entry, tree, leaf)
    _map(tree, words, ipa, leaf, entry, lambda: rng.choice(_FRAMES))
    return ipa


def _leaf(rng: Random, state: State, level: int, output: int) -> int:
    tree = state.first
    raw = output >> tree.shift(level) << tree.shift(level) | (3 if level == 3 else 1)
    raw |= rng.choice((7, rng.getrandbits(3))) << 2 | rng.getrandbits(2) << 6 | rng.getrandbits(1) << 11
    raw |= AF if rng.random() < 0.85 else 0
    raw |= 0 if tree.wide else rng.choice((0, 2, 3)) << 8
    raw |= rng.getrandbits(1) << 51 | rng.getrandbits(4) << 55 | rng.getrandbits(1) << 5
    for bit, chance in ((53, 0.2), (54, 0.2), (16 if level < 3 else 50, 0.05), (52, 0.04)):
        raw |= int(rng.random() < chance) << bit
    return raw


def make_case(rng: Random, state: State) -> p.Case:
    """One random case of this state."""
    tree, words = state.first, dict(state.second_words)
    target = rng.randrange(p.CELLS.start, p.CELLS.stop, 8)
    leaf = rng.choice(tree.leaf_levels() or [3])
    output = _second_address(rng, state, words, target)
    shift = tree.shift(leaf)
    low = rng.getrandbits(max(tree.size, 12)) >> shift << shift | output & (1 << shift) - 1
    low &= (1 << tree.size) - 1
    va = low | ((1 << 64) - (1 << tree.size) if state.upper else 0)
    table = state.registers["TTBR1_EL1" if state.upper else "TTBR0_EL1"] & 0xFFFF_FFFF_0000
    if state.second is not None:
        table = _root_by_stage2(rng, state, words, table)
    for level in range(tree.start, leaf + 1):
        at = table + tree.index(va, level) * 8
        if level == leaf:
            entry = _leaf(rng, state, level, output)
        else:
            table = rng.choice(_FRAMES)
            entry = _second_address(rng, state, words, table) | TABLE
            if rng.random() < 0.15:
                entry |= rng.getrandbits(5) << 59
        entry = _spoil(rng, entry, tree, level) if rng.random() < state.hostile else entry
        words.setdefault(at, entry)
    return _access(rng, state, _strange_address(rng, tree, va & ~7), words)


def _root_by_stage2(rng: Random, state: State, words: dict[int, int], root: int) -> int:
    """Map the start table, whose intermediate address is in TTBR, somewhere; its physical address."""
    tree = state.second
    assert tree is not None
    leaf = rng.choice([level for level in tree.leaf_levels() if tree.shift(level) <= 30] or [3])
    pa = rng.choice(_FRAMES) if leaf == 3 and tree.granule == 16 else root
    entry = _stage2_leaf(state, pa, leaf)
    if rng.random() < 0.1:
        entry = entry & ~(0x3F << 2 | AF) | _stage2_attributes(rng, state) | rng.choice((AF, 0))
    _map(tree, words, root, leaf, entry, lambda: rng.choice(_FRAMES))
    return pa


def _strange_address(rng: Random, tree: Tree, va: int) -> int:
    if rng.random() < 0.03 and tree.size < 63:
        va ^= 1 << rng.randrange(tree.size, 64)
    return va ^ (rng.getrandbits(8) << 56 if rng.random() < 0.08 else 0)


def _access(rng: Random, state: State, va: int, words: dict[int, int]) -> p.Case:
    pan = rng.random() < 0.4
    if not state.real:
        return p.Case(state.registers, rng.choice(p.AT_FORMS), va, 1, pan, 0, words)
    el = rng.choice((0, 1))
    forms = p.REAL_FORMS if el else ("LDR", "STR", "SWP", "LDXR", "fetch")
    return p.Case(state.registers, rng.choice(forms), va, el, pan, state.harness_va, words)


def cases(rng: Random) -> Iterator[p.Case]:
    """Endless cases, a new processor state every few."""
    while True:
        state = make_state(rng)
        for _ in range(STATE_LIFE):
            case = make_case(rng, state)
            if len(case.words) <= p.WORDS:
                yield case
