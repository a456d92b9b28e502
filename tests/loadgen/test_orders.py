"""What clients will ask for: the same for the same seed, and everything there is in it."""

import random
from collections import Counter

from headrace_contracts.limits import Limits
from headrace_contracts.tasks.synthetic import Behaviour
from headrace_loadgen.orders import mix_of, orders

COUNT = 20_000
MIX = mix_of("journal")


def drawn(seed: int) -> list[object]:
    return list(orders(MIX, random.Random(seed), COUNT, "s"))


def test_a_seed_asks_for_the_same_again() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_every_behaviour_and_every_habit_is_in_it() -> None:
    asked = list(orders(MIX, random.Random(3), COUNT, "s"))
    assert {order.asked.behaviour for order in asked if order.asked} == set(Behaviour)
    assert len({order.job_id for order in asked}) == COUNT
    for habit in ("cancel_after_s", "again_after_s", "other_after_s", "ttl_s"):
        assert sum(getattr(order, habit) is not None for order in asked) > COUNT / 1000
    assert sum(order.reads for order in asked) > COUNT / 100
    assert any(order.asked is None for order in asked)


def test_what_is_asked_for_is_allowed_and_most_of_it_is_small() -> None:
    asked = [order.asked for order in orders(MIX, random.Random(4), COUNT, "s") if order.asked]
    for given in asked:
        given.check(Limits())
    assert sum(given.steps * given.step_s for given in asked) / len(asked) < 0.1
    assert Counter(given.behaviour for given in asked)[Behaviour.OK] > 0.9 * COUNT


def test_jobs_that_kill_engines_go_to_one_model_only() -> None:
    harmless = {Behaviour.OK, Behaviour.ERROR, Behaviour.NAN, Behaviour.EMPTY}
    for order in orders(MIX, random.Random(5), COUNT, "s"):
        if order.model == MIX.steady.name and order.asked:
            assert order.asked.behaviour in harmless
