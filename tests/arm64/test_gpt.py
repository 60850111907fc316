"""Granule protection: what the builder writes is what the walker reads, for all four address spaces."""

import contextlib
import random

import pytest

from ptwalk.arch.arm64.faults import FaultType
from ptwalk.arch.errors import InputError
from ptwalk.mmu.arm64 import gpt
from ptwalk.mmu.arm64.access import Arm64Access, PASpace
from ptwalk.mmu.arm64.context import GPCF_FAIL, Abort, FaultRecord
from ptwalk.mmu.arm64.features import Choices, Features
from ptwalk.mmu.arm64.gpt_builder import GptRange, GptShape, build_gpt
from ptwalk.mmu.arm64.system import SystemState
from ptwalk.mmu.arm64.walk import make_context
from ptwalk.mmu.memory import WordMemory

HAVE = Features(frozenset({"FEAT_RME", "FEAT_SEL2"}), 48)
GPIS = sorted(gpt.GPI_NAMES)


class _Allocator:
    def __init__(self, start: int) -> None:
        self.next = start

    def __call__(self, size: int) -> int:
        self.next = -(-self.next // size) * size
        self.next += size
        return self.next - size


def _ranges(rng: random.Random, shape: GptShape) -> list[GptRange]:
    step, ranges, at = 1 << shape.granule, [], 0
    limit = min(1 << shape.pps, 4 << shape.l0_size)
    for _ in range(12):
        size = rng.choice((step, 3 * step, 16 * step, 2 << 20, 32 << 20, 512 << 20, 1 << shape.l0_size))
        at += rng.choice((0, step, 2 << 20, 1 << rng.randrange(20, 32)))
        at = -(-at // step) * step if rng.random() < 0.5 else -(-at // size) * size
        if at + size > limit:
            break
        ranges.append(GptRange(at, at + size, rng.choice(GPIS)))
        at += size
    return ranges


def _permitted(system: SystemState, memory: WordMemory, pa: int, space: PASpace) -> bool:
    ctx = make_context(system, memory, 0, Arm64Access())
    record = FaultRecord(FaultType.NONE, 0)
    with contextlib.suppress(Abort):
        for step in gpt.check(ctx, pa, space, record, on_walk=False):
            assert step.stage == 3
    assert (record.fault, record.gpcf) in ((FaultType.NONE, 0), (FaultType.GPCF_ON_OUTPUT, GPCF_FAIL))
    return record.fault is FaultType.NONE


@pytest.mark.parametrize("granule", [12, 14, 16])
@pytest.mark.parametrize("l0_size", [30, 34])
def test_builder_and_walker_agree(granule: int, l0_size: int) -> None:
    rng = random.Random(f"{granule}/{l0_size}")
    for _ in range(2):
        shape = GptShape(36, granule, l0_size)
        ranges, default = _ranges(rng, shape), rng.choice(GPIS)
        memory = WordMemory({})
        registers = build_gpt(memory, 0x10_0000, _Allocator(0x100_0000), ranges, shape, default)
        system = SystemState({"SCR_EL3": 1, **registers}, HAVE, Choices())
        probes = [rng.randrange(1 << 36) for _ in range(50)]
        probes += [edge + d for part in ranges for edge in part[:2] for d in (-1, 0) if 0 <= edge + d < 1 << 36]
        for pa in probes:
            gpi = next((part.gpi for part in ranges if part.start <= pa < part.end), default)
            for space in PASpace:
                wanted = gpi == gpt.GPI_ANY or gpi == gpt.GPI_OF[space]
                assert _permitted(system, memory, pa, space) == wanted, (hex(pa), space, gpi)
        assert _permitted(system, memory, 1 << 40, PASpace.NonSecure), "beyond the protected space"
        assert not _permitted(system, memory, 1 << 40, PASpace.Realm)


def test_large_uniform_ranges_are_fused() -> None:
    memory = WordMemory({})
    shape = GptShape(32, 12, 30)
    ranges = [GptRange(0, 2 << 20, 9), GptRange(32 << 20, 64 << 20, 11)]
    build_gpt(memory, 0x10_0000, _Allocator(0x100_0000), ranges, shape)
    notes = {gpt.gpt_note(memory.words[0x100_0000 + 8 * i], 1) for i in (0, 512)}
    assert notes == {"contiguous, NonSecure", "contiguous, Realm"}
    assert memory.words[0x10_0008] == 0xF1, "untouched regions stay level 0 blocks"


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([GptRange(0, 0x2000, 9), GptRange(0x1000, 0x3000, 9)], "overlap"),
        ([GptRange(0x800, 0x1000, 9)], "whole granules"),
        ([GptRange(0, 0x1000, 5)], "no such granule protection"),
        ([GptRange(0, 1 << 40, 9)], "beyond the protected"),
    ],
)
def test_bad_ranges_are_refused(ranges: list[GptRange], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_gpt(WordMemory({}), 0x10_0000, _Allocator(0x100_0000), ranges, GptShape(32))


def test_misaligned_tables_are_refused() -> None:
    with pytest.raises(InputError, match="aligned"):
        build_gpt(WordMemory({}), 0x10_0800, _Allocator(0), [], GptShape(32))
    with pytest.raises(InputError, match="aligned"):
        build_gpt(WordMemory({}), 0x10_0000, lambda size: 0x1000, [GptRange(0, 0x1000, 9)], GptShape(32))
