"""Failed starts: counted once, tried ever more seldom, and never taken for missing capacity."""

from policy_views import MONDAY, Policy, busy, gpu, idle, model, starting, worker

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.observation import Need

FOUR = Scaling(max_workers=4)


def failing(policy: Policy, seconds: int, takes_s: int = 1) -> list[int]:
    """Moments of starts of a model whose workers end `takes_s` after their start."""
    orders: list[int] = []
    running: list[tuple[int, str]] = []
    for at in range(seconds):
        failed = tuple(id_ for began, id_ in running if at - began >= takes_s)
        running = [(began, id_) for began, id_ in running if at - began < takes_s]
        view = model(
            scaling=FOUR, waiting=1, failed=failed, workers=starting(*(id_ for _, id_ in running), since=float(at))
        )
        decision = policy.at(at, view)
        running += [(at, f"w{at}-{index}") for index in range(len(decision.start))]
        orders += [at] * len(decision.start)
    return orders


def test_each_failure_doubles_the_time_to_the_next_start_up_to_a_minute():
    orders = failing(Policy(), 300)
    # One second to fail, and then 1, 2, 4 .. 60.
    assert orders == [0, 2, 5, 10, 19, 36, 69, 130, 191, 252]


def test_the_third_failure_in_a_row_is_a_crash_loop():
    policy = Policy()
    policy.at(0, model(scaling=FOUR, waiting=4))
    one = policy.at(1, model(scaling=FOUR, waiting=4, failed=("a",)))
    assert (one.blocked, one.start) == (Blocked.BACKOFF, ())
    three = policy.at(2, model(scaling=FOUR, waiting=4, failed=("b", "c")))
    assert (three.blocked, three.start) == (Blocked.CRASH_LOOP, ())
    assert "3 starts in a row failed" in three.reason
    assert "exit status 1" in three.reason


def test_one_is_tried_at_a_time_and_its_success_is_enough_for_all():
    policy = Policy()
    policy.at(0, model(scaling=FOUR, waiting=4, failed=("a", "b", "c")))
    assert policy.at(0.9, model(scaling=FOUR, waiting=4)).start == ()
    assert len(policy.at(1, model(scaling=FOUR, waiting=4)).start) == 1
    for at in range(2, 60):
        probing = policy.at(at, model(scaling=FOUR, waiting=4, workers=starting("d", since=1)))
        assert (probing.start, probing.blocked) == ((), Blocked.CRASH_LOOP)
    closed = policy.at(60, model(scaling=FOUR, waiting=3, held=1, workers=busy("d")))
    assert (len(closed.start), closed.blocked) == (3, Blocked.NONE)


def test_a_crash_loop_lasts_while_the_only_worker_is_tried():
    policy = Policy()
    policy.at(0, model(waiting=1, scaling=Scaling(), failed=("a", "b", "c")))
    assert policy.at(4, model(waiting=1, scaling=Scaling())).start
    trying = policy.at(5, model(waiting=1, scaling=Scaling(), workers=starting("d", since=4)))
    assert (trying.start, trying.blocked) == ((), Blocked.CRASH_LOOP)
    assert policy.at(6, model(held=1, scaling=Scaling(), workers=busy("d"))).blocked is Blocked.NONE


def test_a_try_that_nobody_hears_of_is_not_repeated_at_once():
    policy = Policy()
    assert failing(policy, 20)[-1] == 19
    # The fourth failure: 8 s, from the try of second 19 on, as no failure of it is seen.
    starts = [at for at in range(20, 60) if policy.at(at, model(scaling=FOUR, waiting=4)).start]
    assert starts == [27, 35, 43, 51, 59]


def test_workers_that_were_ordered_together_fail_once():
    policy = Policy()
    policy.at(0, model(scaling=FOUR, waiting=4))
    policy.at(1, model(scaling=FOUR, waiting=4, failed=("a", "b"), workers=starting("c", "d")))
    policy.at(2, model(scaling=FOUR, waiting=4, failed=("c", "d")))
    assert policy.state.models[0].starts.failures == 4
    assert len(policy.at(3, model(scaling=FOUR, waiting=4)).start) == 1


def test_a_healthy_worker_of_a_crashing_model_keeps_serving_and_closes_nothing():
    policy = Policy()
    there = busy("good")
    policy.at(0, model(scaling=FOUR, waiting=3, held=1, workers=there))
    policy.at(1, model(scaling=FOUR, waiting=3, held=1, workers=there, failed=("a", "b", "c")))
    decision = policy.at(1.9, model(scaling=FOUR, waiting=3, held=1, workers=there))
    assert (decision.start, decision.drain, decision.stop, decision.blocked) == ((), (), (), Blocked.CRASH_LOOP)


def test_another_version_is_another_chance():
    policy = Policy()
    policy.at(0, model(scaling=FOUR, waiting=4, failed=("a", "b", "c")))
    decision = policy.at(1, model(scaling=FOUR, waiting=4, version="2", failed=("late",)))
    assert (len(decision.start), decision.blocked) == (4, Blocked.NONE)


def test_a_worker_of_the_older_entry_says_nothing_about_the_new_one():
    policy = Policy()
    policy.at(0, model(scaling=FOUR, waiting=4))
    policy.at(1, model(scaling=FOUR, waiting=3, workers=starting("old")))
    policy.at(2, model(scaling=FOUR, waiting=3, workers=starting("old"), version="2", outdated=("old",)))
    view = model(
        scaling=FOUR, waiting=3, version="2", outdated=("old",), workers=starting("old"), failed=("a", "b", "c")
    )
    assert policy.at(3, view).blocked is Blocked.CRASH_LOOP
    view = model(scaling=FOUR, waiting=3, held=1, version="2", outdated=("old",), workers=busy("old"))
    assert policy.at(3.5, view).blocked is Blocked.CRASH_LOOP


def test_a_worker_that_is_not_ready_in_time_is_ended_once_and_counts_once():
    scaling = Scaling(max_workers=1, start_timeout_s=30)
    policy = Policy()
    policy.at(0, model(scaling=scaling, waiting=1))
    assert policy.at(30, model(scaling=scaling, waiting=1, workers=starting("a", since=0))).stop == ()
    late = policy.at(31, model(scaling=scaling, waiting=1, workers=starting("a", since=0)))
    assert [stop.worker for stop in late.stop] == ["a"]
    assert "30 s" in late.stop[0].reason
    assert policy.at(32, model(scaling=scaling, waiting=1, workers=starting("a", since=0))).stop == ()
    policy.at(33, model(scaling=scaling, waiting=1, failed=("a",)))
    assert policy.state.models[0].starts.failures == 1


def test_without_a_setting_a_start_may_take_the_time_to_load_and_a_minute():
    policy = Policy()
    assert policy.at(120, model(waiting=1, workers=starting("a", since=0))).stop == ()
    assert policy.at(121, model(waiting=1, workers=starting("a", since=0))).stop


def test_a_worker_that_does_not_end_is_ordered_to_again():
    policy = Policy()
    view = model(scaling=Scaling(start_timeout_s=1), waiting=1, workers=starting("a", since=0))
    assert [at for at in range(2, 130) if policy.at(at, view).stop] == [2, 62, 122]
    assert policy.state.models[0].starts.failures == 1


def test_an_unhealthy_worker_is_no_capacity_and_is_ended_when_it_has_no_job():
    policy = Policy()
    sick = worker("a", WorkerPhase.UNHEALTHY, detail="CUDA error", jobs=1)
    decision = policy.at(10, model(scaling=FOUR, held=1, workers=(sick,)))
    assert (decision.target, decision.stop, decision.start) == (1, (), ())
    sick = worker("a", WorkerPhase.UNHEALTHY, detail="CUDA error")
    decision = policy.at(11, model(scaling=FOUR, held=1, workers=(sick,)))
    assert [stop.worker for stop in decision.stop] == ["a"]
    assert "CUDA error" in decision.stop[0].reason
    assert policy.state.models[0].starts.failures == 1
    assert len(decision.start) == 1


def test_a_worker_that_loads_again_after_it_was_ready_is_not_late():
    """Its order is long ago: its engine died and is being started anew."""
    policy = Policy()
    policy.at(1000, model(scaling=FOUR, held=1, workers=busy("a")))
    assert policy.at(1001, model(scaling=FOUR, held=1, workers=starting("a", since=0))).stop == ()
    assert policy.at(1122, model(scaling=FOUR, held=1, workers=starting("a", since=0))).stop


def test_a_crash_loop_takes_nobody_s_place():
    whole = Need(SlotKind.GPU, 0)
    policy = Policy((gpu(free=0),))
    patient = Scaling(idle_timeout_s=1000)
    other = model("writer", scaling=patient, workers=idle("w", since=0, slot="gpu:0", need=whole), need=whole)
    broken = model("painter", waiting=5, need=whole, failed=("a", "b", "c"))
    policy.all(100, broken, other, wall=MONDAY)
    for at in range(101, 120):
        decisions = policy.all(at, model("painter", waiting=5, need=whole), other, wall=MONDAY)
        assert decisions["writer"].drain == ()
        assert decisions["painter"].blocked is Blocked.CRASH_LOOP


def test_others_are_not_held_up_by_a_crash_loop():
    policy = Policy()
    policy.all(0, model("painter", waiting=5, failed=("a", "b", "c")), wall=MONDAY)
    decisions = policy.all(0.9, model("painter", waiting=5), model("writer", waiting=2), wall=MONDAY)
    assert (len(decisions["painter"].start), len(decisions["writer"].start)) == (0, 2)
