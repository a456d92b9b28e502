"""More workers soon, fewer late, none under a job."""

import pytest
from policy_views import Policy, busy, idle, model, starting

from headrace_contracts.scaling import Scaling

QUICK = {"scale_down_delay_s": 0.0, "idle_timeout_s": 0.0, "cooldown_s": 0.0}


def test_the_first_worker_waits_for_no_window_and_the_others_do():
    scaling = Scaling(max_workers=8, scale_up_window_s=20)
    policy = Policy()
    assert len(policy.at(0, model(scaling=scaling, waiting=4)).start) == 1
    there = starting("a", since=0)
    for at in range(1, 20):
        assert policy.at(at, model(scaling=scaling, waiting=4, workers=there)).start == ()
    assert len(policy.at(20, model(scaling=scaling, waiting=4, workers=there)).start) == 3


def test_a_peak_shorter_than_the_window_starts_nobody():
    scaling = Scaling(max_workers=8, scale_up_window_s=20)
    policy = Policy()
    there = busy("a")
    for at in range(100):
        waiting = 3 if at % 20 else 0
        assert policy.at(at, model(scaling=scaling, waiting=waiting, held=1, workers=there)).start == ()


def test_fewer_are_wanted_only_after_the_delay_and_the_most_within_it_counts():
    scaling = Scaling(max_workers=8, scale_down_delay_s=30, cooldown_s=0)
    policy = Policy()
    there = busy("a") + idle("b", "c", "d")
    policy.at(0, model(scaling=scaling, waiting=3, held=1, workers=there))
    for at in range(1, 31):
        held = 3 if at == 10 else 1
        assert policy.at(at, model(scaling=scaling, held=held, workers=there)).drain == ()
    # At 31 the four of the beginning are forgotten, the three of second 10 (until 11) are not.
    assert policy.at(31, model(scaling=scaling, held=1, workers=there)).target == 3
    assert policy.at(41, model(scaling=scaling, held=1, workers=there)).target == 1


def test_half_of_the_excess_goes_at_a_time():
    scaling = Scaling(max_workers=8, scale_down_delay_s=0, cooldown_s=10, idle_timeout_s=1000)
    policy = Policy()
    there = idle(*"abcdefgh")
    drained = []
    for at in range(0, 60, 10):
        decision = policy.at(at, model(scaling=scaling, workers=there))
        drained.append(len(decision.drain))
        there = tuple(worker for worker in there if worker.id not in decision.drain)
    assert drained == [4, 2, 1, 0, 0, 0]


def test_the_step_bounds_how_many_go_at_a_time():
    scaling = Scaling(max_workers=8, scale_down_step=3, scale_down_delay_s=0, cooldown_s=0)
    assert len(Policy().at(1000, model(scaling=scaling, workers=idle(*"abcdefgh"))).drain) == 3


def test_between_a_start_and_a_drain_and_between_two_drains_lies_the_cooldown():
    scaling = Scaling(max_workers=8, scale_down_delay_s=0, cooldown_s=10, scale_down_step=1, idle_timeout_s=0)
    policy = Policy()
    assert policy.at(0, model(scaling=scaling, waiting=3)).start
    there = idle(*"abc", since=1)
    drains = []
    for at in range(1, 40):
        decision = policy.at(at, model(scaling=scaling, workers=there))
        there = tuple(worker for worker in there if worker.id not in decision.drain)
        drains += [at] * len(decision.drain)
    assert drains == [10, 20, 30]


def test_the_longest_idle_go_first():
    scaling = Scaling(max_workers=8, scale_down_step=1, **{**QUICK, "idle_timeout_s": 1000})
    there = idle("young", since=90) + idle("old", since=10) + idle("older", since=5)
    assert Policy().at(100, model(scaling=scaling, workers=there)).drain == ("older",)


def test_the_last_one_stays_for_the_idle_timeout_and_then_goes():
    scaling = Scaling(idle_timeout_s=60, scale_down_delay_s=5, cooldown_s=0)
    policy = Policy()
    policy.at(0, model(scaling=scaling, held=1, workers=busy("a")))
    for at in range(1, 60):
        assert policy.at(at, model(scaling=scaling, workers=idle("a", since=0.5))).drain == ()
    assert policy.at(61, model(scaling=scaling, workers=idle("a", since=0.5))).drain == ("a",)


def test_a_short_idle_timeout_does_not_wait_for_the_delay():
    scaling = Scaling(idle_timeout_s=5, scale_down_delay_s=300, cooldown_s=0)
    policy = Policy()
    policy.at(0, model(scaling=scaling, held=1, workers=busy("a")))
    assert policy.at(4, model(scaling=scaling, workers=idle("a", since=1))).drain == ()
    assert policy.at(6, model(scaling=scaling, workers=idle("a", since=1))).drain == ("a",)


def test_a_held_job_in_its_backoff_keeps_the_last_one():
    scaling = Scaling(idle_timeout_s=10, **dict.fromkeys(("scale_down_delay_s", "cooldown_s"), 0.0))
    policy = Policy()
    for at in range(0, 200, 10):
        assert policy.at(at, model(scaling=scaling, held=1, workers=idle("a"))).drain == ()


def test_a_new_scaler_counts_the_idle_time_of_a_worker_from_its_heartbeat():
    scaling = Scaling(idle_timeout_s=60, cooldown_s=10)
    assert Policy().at(1000, model(scaling=scaling, workers=idle("a", since=990))).drain == ()
    assert Policy().at(1000, model(scaling=scaling, workers=idle("a", since=900))).drain == ("a",)


def test_a_new_scaler_keeps_what_it_finds_for_the_delay():
    scaling = Scaling(max_workers=8, scale_down_delay_s=30)
    policy = Policy()
    there = busy("a") + idle("b", "c", "d")
    assert policy.at(1000, model(scaling=scaling, held=1, workers=there)).drain == ()
    assert policy.at(1031, model(scaling=scaling, held=1, workers=there)).drain


def test_a_worker_that_starts_is_never_in_the_way_of_nothing():
    """Its job was canceled: it comes up, waits its idle timeout, and goes; no second one is started."""
    policy = Policy()
    policy.at(0, model(waiting=1))
    for at in range(1, 100):
        decision = policy.at(at, model(workers=starting("a", since=0)))
        assert (decision.target, decision.start, decision.drain, decision.stop) == (1, (), (), ())


def test_busy_ones_are_never_too_many():
    scaling = Scaling(max_workers=2, **QUICK)
    decision = Policy().at(100, model(scaling=scaling, workers=busy(*"abcd") + idle("e")))
    assert decision.target == 4
    assert decision.drain == ("e",)


def test_a_busy_one_is_left_alone_though_nobody_knows_its_jobs():
    """It was ready and does not speak: it may be in the middle of a job."""
    silent = busy("a", jobs=0)
    assert Policy().at(1000, model(scaling=Scaling(max_workers=1, **QUICK), workers=silent)).drain == ()


def test_those_above_the_most_go_at_once():
    scaling = Scaling(max_workers=2, cooldown_s=1000, scale_down_delay_s=1000)
    policy = Policy()
    policy.at(0, model(waiting=6))
    assert len(policy.at(1, model(scaling=scaling, waiting=6, workers=idle(*"abcdef"))).drain) == 4


def test_a_drain_that_no_heartbeat_shows_yet_is_not_ordered_twice():
    scaling = Scaling(max_workers=8, **QUICK)
    policy = Policy()
    first = policy.at(100, model(scaling=scaling, workers=idle(*"abcd")))
    second = policy.at(101, model(scaling=scaling, workers=idle(*"abcd")))
    assert len(first.drain) == 2
    assert not set(first.drain) & set(second.drain)


def test_a_drain_that_was_lost_is_ordered_again():
    policy = Policy()
    scaling = Scaling(max_workers=8, **QUICK)
    drains = [policy.at(at, model(scaling=scaling, workers=idle("a"))).drain for at in range(100, 122)]
    assert [index for index, drain in enumerate(drains) if drain] == [0, 10, 20]


def test_a_drain_that_was_refused_starts_no_other_worker():
    """The worker got a job in that instant, and its heartbeat does not say so yet."""
    policy = Policy()
    scaling = Scaling(max_workers=8, **QUICK)
    assert policy.at(100, model(scaling=scaling, workers=idle("a"))).drain == ("a",)
    assert policy.at(101, model(scaling=scaling, held=1, workers=idle("a"))).start == ()


@pytest.mark.parametrize("minimum", [1, 3])
def test_never_below_the_fewest(minimum):
    scaling = Scaling(min_workers=minimum, max_workers=8, **QUICK)
    policy = Policy()
    there = idle(*"abcdef")
    for at in range(100, 120):
        gone = policy.at(at, model(scaling=scaling, workers=there)).drain
        there = tuple(worker for worker in there if worker.id not in gone)
    assert len(there) == minimum
