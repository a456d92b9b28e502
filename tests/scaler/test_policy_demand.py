"""How many workers the work wants. Start here: each test is one rule, and what `docs/scaling.md` says in formulas."""

import math

import pytest
from policy_views import MONDAY, Policy, busy, idle, model

from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.decision import Blocked


def test_no_work_wants_no_worker():
    decision = Policy().at(0, model())
    assert (decision.target, decision.start, decision.blocked) == (0, (), Blocked.NONE)
    assert "0 waiting" in decision.reason


def test_each_waiting_and_each_held_job_counts():
    decision = Policy().at(0, model(waiting=3, held=2, workers=busy("a", "b")))
    assert decision.target == 5
    assert len(decision.start) == 3


def test_a_job_between_two_attempts_is_work_though_no_worker_has_it():
    assert len(Policy().at(0, model(held=1)).start) == 1


@pytest.mark.parametrize(
    ("settings", "jobs_per_worker", "jobs", "workers"),
    [
        ({}, 1, 5, 5),
        ({}, 4, 5, 2),
        ({"target_jobs_per_worker": 2.0}, 4, 5, 3),
        ({"target_jobs_per_worker": 0.5}, 1, 2, 4),
        ({"target_utilization": 0.7}, 1, 7, 10),
        ({"target_utilization": 0.8}, 4, 8, 3),
        ({"buffer_workers": 2}, 1, 3, 5),
        ({"buffer_workers": 2}, 1, 0, 0),
    ],
)
def test_workers_by_the_number_of_jobs(settings, jobs_per_worker, jobs, workers):
    scaling = Scaling(max_workers=64, **settings)
    assert Policy().at(0, model(scaling=scaling, waiting=jobs, jobs_per_worker=jobs_per_worker)).target == workers


@pytest.mark.parametrize(
    ("waiting", "held", "service_s", "workers"),
    [
        (100, 0, 3.0, 5),  # 300 s of work within 60 s
        (100, 0, 0.1, 1),
        (1, 0, 600.0, 1),  # a second worker would not start it sooner
        (3, 1, 600.0, 4),  # a place for each
    ],
)
def test_workers_that_start_what_waits_in_time(waiting, held, service_s, workers):
    scaling = Scaling(max_workers=64, target_wait_s=60)
    view = model(scaling=scaling, waiting=waiting, held=held, service_s=service_s)
    assert Policy().at(0, view).target == workers


def test_workers_that_keep_up_with_what_arrives():
    """0.5 jobs of 10 s a second are 5 workers' work, 6.25 at 80 %; whatever little waits at the moment."""
    scaling = Scaling(max_workers=64, target_wait_s=60, target_utilization=0.8)
    policy = Policy()
    for at in range(600):
        decision = policy.at(at, model(scaling=scaling, held=6, arrival_rate=0.5, service_s=10.0))
    assert decision.target == 7


def test_a_burst_is_no_lasting_rate():
    scaling = Scaling(max_workers=64, target_wait_s=600)
    policy = Policy()
    policy.at(0, model(scaling=scaling))
    view = model(scaling=scaling, waiting=100, arrival_rate=100 / 60, service_s=60.0)
    assert policy.at(1, view).target == 10


def test_a_service_time_that_nobody_knows_is_measured_by_one_worker():
    scaling = Scaling(max_workers=64, target_wait_s=60)
    policy = Policy()
    assert policy.at(0, model(scaling=scaling, waiting=1000, oldest_wait_s=0)).target == 1
    assert policy.at(61, model(scaling=scaling, waiting=40, oldest_wait_s=61)).target == 40


def test_what_waits_in_paused_lanes_asks_for_nobody():
    decision = Policy().at(0, model(waiting=9, paused=True))
    assert (decision.target, decision.start, decision.blocked) == (0, (), Blocked.PAUSED)


def test_more_than_the_most_is_said():
    decision = Policy().at(0, model(scaling=Scaling(max_workers=2), waiting=9))
    assert (decision.target, len(decision.start), decision.blocked) == (2, 2, Blocked.MAX_WORKERS)
    assert "9 wanted" in decision.reason
    assert "max_workers is 2" in decision.reason


def test_the_fewest_are_there_without_work():
    decision = Policy().at(0, model(scaling=Scaling(min_workers=2, max_workers=4)))
    assert len(decision.start) == 2
    assert "min_workers is 2" in decision.reason


def test_workers_of_others_are_capacity_and_are_left_alone():
    scaling = Scaling(max_workers=4, idle_timeout_s=0, scale_down_delay_s=0, cooldown_s=0)
    policy = Policy()
    others = idle("x", "y", ours=False)
    assert policy.at(0, model(scaling=scaling, waiting=3, workers=others)).start == ("cpu",)
    assert policy.at(100, model(scaling=scaling, workers=others)).drain == ()


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0, 0.0])
def test_impossible_numbers_change_nothing(number):
    scaling = Scaling(max_workers=64, target_wait_s=60)
    view = model(scaling=scaling, waiting=3, oldest_wait_s=number, arrival_rate=number, service_s=number)
    assert Policy().at(number, view, wall=MONDAY).target in (1, 3)
