"""Every store against the model, over histories that Hypothesis makes up."""

import asyncio
import itertools
from datetime import timedelta

import pytest
from comparison import JUMPS, KEYS, KINDS, METADATA, SEEN, STATES, TTLS, Comparison
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from backends import TICK
from lapse.core.lifecycle import Cause, Rules
from lapse.core.messages import UsedBy
from parts import store_with_parts

pytestmark = pytest.mark.long

RULES = {
    "a day": Rules(),
    "no horizon": Rules(horizon=timedelta(0)),
    "switched off": Rules(enforced=False),
}
WHERE = st.sampled_from(KEYS)


class Machine(RuleBasedStateMachine):
    """Takes steps on an empty store whose URL `opening` yields."""

    def __init__(self, opening, rules):
        super().__init__()
        self._opening = opening
        self._runner = asyncio.Runner()
        self._store = store_with_parts(opening.__enter__(), rules)
        self._runner.run(self._store.open())
        self._comparison = Comparison(self._store)

    def _take(self, name, *arguments):
        self._comparison.steps.append(name)
        self._runner.run(getattr(self._comparison, name)(*arguments))
        self._runner.run(self._comparison.compare())

    def teardown(self):
        self._runner.run(self._store.close())
        self._runner.close()
        self._opening.__exit__(None, None, None)

    @initialize(ttl=st.sampled_from(TTLS[1:]), used_by=st.sampled_from(UsedBy))
    def begin(self, ttl, used_by):
        self._take("create", KEYS[0], ttl, {}, {}, used_by)

    @rule(
        where=WHERE,
        ttl=st.sampled_from(TTLS),
        state=st.sampled_from(STATES),
        metadata=st.sampled_from(METADATA),
        used_by=st.sampled_from(UsedBy),
    )
    def create(self, where, ttl, state, metadata, used_by):
        self._take("create", where, ttl, state, metadata, used_by)

    @rule(
        where=WHERE,
        kind=st.sampled_from(sorted(KINDS)),
        delay=st.sampled_from([TICK, 0 * TICK, -TICK]),
        state=st.sampled_from(STATES),
        seen=st.sampled_from(SEEN),
    )
    def append(self, where, kind, delay, state, seen):
        self._take("append", where, kind, delay, state, seen)

    @rule(where=WHERE, back=st.integers(0, 2))
    def repeat(self, where, back):
        self._take("repeat", where, back)

    @rule(where=WHERE)
    def delete(self, where):
        self._take("delete", where)

    @rule(where=WHERE)
    def extend(self, where):
        self._take("extend", where)

    @rule(held_for=st.sampled_from([TICK, TTLS[1]]))
    def hold_off(self, held_for):
        self._take("hold_off", held_for)

    @rule(where=WHERE, held_for=st.sampled_from([TICK, TTLS[1]]))
    def restart_ttl(self, where, held_for):
        self._take("restart_ttl", where, held_for)

    @rule(
        where=WHERE,
        metadata=st.none() | st.sampled_from(METADATA),
        ttl=st.none() | st.sampled_from(TTLS),
    )
    def amend(self, where, metadata, ttl):
        self._take("amend", where, metadata, ttl)

    @rule(where=WHERE, cause=st.sampled_from(Cause))
    def resurrect(self, where, cause):
        self._take("resurrect", where, cause)

    @rule(limit=st.integers(1, 3))
    def expire_due(self, limit):
        self._take("expire_due", limit)

    @rule(limit=st.integers(1, 3))
    def expire_backlog(self, limit):
        self._take("expire_backlog", limit)

    @rule(limit=st.integers(1, 3))
    def purge_due(self, limit):
        self._take("purge_due", limit)

    @rule(jump=st.sampled_from(JUMPS))
    def pass_time(self, jump):
        self._comparison.pass_time(jump)

    @rule(number=st.integers(0, 3), early=st.sampled_from([0 * TICK, TICK]))
    def go_to_a_deadline(self, number, early):
        self._comparison.go_to_a_deadline(number, early)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_a_store_does_what_the_model_does(backend, rules, tmp_path):
    numbers = itertools.count()
    run_state_machine_as_test(
        lambda: Machine(backend.empty(tmp_path / str(next(numbers))), rules),
        settings=settings(max_examples=backend.examples, stateful_step_count=40),
    )
