"""The same random steps under hypothesis, with what must hold between the models after each of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ptwalk.rmap.models import MODELS
from ptwalk.rmap.space.system import Settings, System

from .test_stateful import Author, attempt, close, opening, wrong

P, N, T = MODELS
RANDOM = st.randoms(use_true_random=False)


class Scenarios(RuleBasedStateMachine):
    """Every rule writes one step and does it; a refused step changes nothing (test_stateful.do)."""

    arch = "x86_64"

    @initialize(rng=RANDOM)
    def start(self, rng: random.Random) -> None:
        self.system, self.roots = System(Settings(self.arch)), 0
        author = Author(self.system, rng)
        for line in [*opening(self.system), f"fault A v 0..{author.pmd - 1}", author.mmap(), author.mmap()]:
            self.take(line)

    def take(self, line: str) -> None:
        note(line)
        problem, made = attempt(self.system, line, 0)
        self.roots += made
        assert not problem

    @rule(rng=RANDOM)
    def step(self, rng: random.Random) -> None:
        self.take(Author(self.system, rng).step())

    @invariant()
    def tables_and_counters_agree(self) -> None:
        assert list(wrong(self.system, random.Random(1))) == []

    @invariant()
    def models_agree_where_they_must(self) -> None:
        """The accounting's rules between the models: folios up to a PMD's size, nobody's refused."""
        for folio in self.system.folios.values():
            if not folio.is_large or folio.kind.is_hugetlb or folio.order > self.system.levels.pmd:
                continue
            precise, none, total = (self.system.acct.models[name] for name in MODELS)
            if any(model.of(folio).refused for model in (precise, none, total)):
                continue
            assert none.average_page_mapcount(folio) == total.average_page_mapcount(folio)
            assert len({model.maybe_mapped_shared(folio) for model in (precise, none, total)}) == 1
            assert none.of(folio).partially_mapped == total.of(folio).partially_mapped
            assert precise.of(folio).partially_mapped or not total.of(folio).partially_mapped
            assert [sum(m.of(folio).nr[2:]) for m in (none, total)] == [sum(precise.of(folio).nr[2:])] * 2

    def teardown(self) -> None:
        if hasattr(self, "system"):
            close(self.system, self.roots)


class Arm64(Scenarios):
    arch = "arm64-4k"


@pytest.mark.parametrize("machine", [Scenarios, Arm64])
def test_scenarios_under_hypothesis(machine: type[Scenarios]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=4, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
