"""Random cases on unicorn, a walker nobody here wrote: 4 and 5 levels, both rings, every kind of access it knows."""

import random
from collections import Counter

import pytest
import unicorn_x86 as witness

from ptwalk.mmu.memory import WordMemory
from ptwalk.mmu.walk import AccessKind, Translation, outcome
from ptwalk.mmu.x86_64.access import X86Access
from ptwalk.mmu.x86_64.regime import X86Regime

CASES = 12_000
KINDS = {
    witness.LOAD: AccessKind.READ,
    witness.STORE: AccessKind.WRITE,
    witness.FETCH: AccessKind.EXECUTE,
    witness.RMW: AccessKind.WRITE,
}
VECTORS = {"#GP": 13, "#PF": 14}


def walk(case, profile):
    features = {"maxphyaddr": witness.MAXPHYADDR, "profile": profile}
    regime = X86Regime.from_registers(case.registers, features)
    access = X86Access(KINDS[case.kind], case.user, rmw=case.kind == witness.RMW)
    memory = WordMemory(dict(case.words))
    return outcome(regime.walk(memory, case.va, access, update=True)), memory.words


def find_store(machine, case, seen):
    """Fill in where a store that went through has landed; -1 where it is not where the walker says."""
    if case.kind == witness.STORE and seen.vector == 0x20:
        end, _ = walk(case, "architecture")
        seen.pa = end.pa if isinstance(end, Translation) and machine.take_store(end.pa) else -1


def differs(case, seen, profile):
    """What differs between one case on unicorn and our walk, in a word, or nothing."""
    end, words = walk(case, profile)
    if not isinstance(end, Translation):
        if VECTORS[end.name] != seen.vector:
            return "vector"
        if seen.vector == 14 and (end.code, end.syndrome["CR2"]) != (seen.error, seen.cr2):
            return "error code" if end.code != seen.error else "CR2"
        return "words after a fault" if profile != "architecture" and words != seen.words else ""
    if seen.vector != 0x20:
        return "vector"
    if seen.pa is not None and seen.pa != end.pa:
        return "physical address"
    return "accessed and dirty bits" if words != seen.words else ""


@pytest.mark.parametrize("la57", [False, True], ids=["4-level", "5-level"])
def test_the_walker_agrees_with_unicorn(la57):
    seed = 20261123 + la57
    print(f"seed {seed}, {CASES} cases")
    rng, machine = random.Random(seed), witness.UnicornX86(la57)
    outcomes, wrong = Counter(), {}
    for i in range(CASES):
        case = witness.make_case(rng, la57)
        seen = machine.run(case)
        find_store(machine, case, seen)
        outcomes[case.kind, case.user, seen.vector] += 1
        for profile in ("unicorn-2.1.4",) if case.kind == witness.RMW else ("architecture", "unicorn-2.1.4"):
            if text := differs(case, seen, profile):
                wrong.setdefault(f"{profile}: {text}", []).append((i, case, seen, walk(case, profile)[0]))
    assert not wrong, {text: (len(cases), cases[0]) for text, cases in wrong.items()}
    for kind in KINDS:
        for user in (False, True):
            assert outcomes[kind, user, 0x20] > 15
            assert outcomes[kind, user, 14] > 100
