"""Several models on the same slots."""

import itertools

import pytest
from policy_views import GB, MONDAY, Policy, busy, gpu, idle, model, worker

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.observation import Need, Slot

EIGHT_GB = Need(SlotKind.GPU, 8 * GB)
WHOLE = Need(SlotKind.GPU, 0)


def on_gpu(name: str, *, workers=(), waiting=0, oldest_wait_s=None, need=WHOLE, held=0, **settings):
    scaling = Scaling(**{"max_workers": 4, "idle_timeout_s": 1000.0, **settings})
    return model(
        name, scaling=scaling, workers=workers, waiting=waiting, oldest_wait_s=oldest_wait_s, need=need, held=held
    )


def gpu_idle(id_: str, since: float = 0.0, slot: str = "gpu:0", need: Need = WHOLE):
    return idle(id_, since=since, slot=slot, need=need)


def test_a_gpu_holds_as_many_as_its_memory():
    decision = Policy((gpu(),)).at(0, on_gpu("painter", waiting=4, need=EIGHT_GB))
    assert decision.start == ("gpu:0",) * 3
    assert decision.blocked is Blocked.NO_SLOT
    assert "gpu:0 0.0 GB of 24.0 GB free" in decision.reason


def test_workers_of_a_model_spread_over_the_gpus_and_models_pack():
    policy = Policy((gpu("gpu:0", free=16), gpu("gpu:1")))
    assert policy.at(0, on_gpu("painter", waiting=1, need=EIGHT_GB)).start == ("gpu:0",)
    assert set(Policy(policy.slots).at(0, on_gpu("painter", waiting=2, need=EIGHT_GB)).start) == {"gpu:0", "gpu:1"}


def test_a_whole_gpu_is_one_that_nobody_uses():
    policy = Policy((gpu("gpu:0", free=23), gpu("gpu:1")))
    assert policy.at(0, on_gpu("painter", waiting=2)).start == ("gpu:1",)


def test_what_fits_into_no_slot_is_said_with_both_numbers():
    decision = Policy((gpu(),)).at(0, on_gpu("giant", waiting=1, need=Need(SlotKind.GPU, 80 * GB)))
    assert (decision.start, decision.blocked) == ((), Blocked.NEVER_FITS)
    assert "80.0 GB" in decision.reason
    assert "24.0 GB" in decision.reason


def test_a_kind_of_slot_that_is_missing_is_said():
    decision = Policy((Slot("cpu", SlotKind.CPU, 8, 8),)).at(0, on_gpu("painter", waiting=1))
    assert decision.blocked is Blocked.NEVER_FITS
    assert "no slot of that kind" in decision.reason


def test_a_quarantined_slot_is_not_used_and_its_size_still_counts():
    decision = Policy((gpu(quarantined="Xid 79"),)).at(0, on_gpu("painter", waiting=1))
    assert (decision.start, decision.blocked) == ((), Blocked.NO_SLOT)
    assert "Xid 79" in decision.reason


def test_higher_priority_first_then_who_has_nothing_then_the_oldest():
    slots = (gpu("gpu:0"),)
    high = on_gpu("z-high", waiting=1, oldest_wait_s=1, priority=5)
    low = on_gpu("a-low", waiting=1, oldest_wait_s=99)
    decisions = Policy(slots).all(0, low, high, wall=MONDAY)
    assert (decisions["z-high"].start, decisions["a-low"].start) == (("gpu:0",), ())

    served = on_gpu("served", waiting=9, held=1, oldest_wait_s=99, workers=busy("s", slot="gpu:9", need=WHOLE))
    fresh = on_gpu("fresh", waiting=1, oldest_wait_s=1)
    decisions = Policy(slots).all(0, served, fresh, wall=MONDAY)
    assert (decisions["served"].start, decisions["fresh"].start) == ((), ("gpu:0",))

    decisions = Policy(slots).all(
        0, on_gpu("a", waiting=1, oldest_wait_s=1), on_gpu("b", waiting=1, oldest_wait_s=2), wall=MONDAY
    )
    assert (decisions["a"].start, decisions["b"].start) == ((), ("gpu:0",))


def test_each_model_gets_its_first_worker_before_any_gets_its_second():
    slots = tuple(gpu(f"gpu:{index}") for index in range(4))
    decisions = Policy(slots).all(
        0, on_gpu("a", waiting=9, oldest_wait_s=9), on_gpu("b", waiting=9, oldest_wait_s=1), wall=MONDAY
    )
    assert (len(decisions["a"].start), len(decisions["b"].start)) == (3, 1)


def test_an_idle_worker_makes_room_for_jobs_that_wait():
    policy = Policy((gpu(free=0), gpu("gpu:1", free=0)))
    waits, rests = on_gpu("waits", waiting=1), on_gpu("rests", workers=gpu_idle("r"))
    decisions = policy.all(100, waits, rests, wall=MONDAY)
    assert decisions["rests"].drain == ("r",)
    assert "room is made for waits" in decisions["rests"].reason
    assert (decisions["waits"].start, decisions["waits"].blocked) == ((), Blocked.NO_SLOT)
    # Its heartbeat does not say so yet: nobody else is drained, nothing is started on what is not free.
    second = policy.all(101, waits, rests, on_gpu("third", workers=gpu_idle("t", slot="gpu:1")), wall=MONDAY)
    assert [decision.drain for decision in second.values()] == [(), (), ()]
    leaving = (worker("r", WorkerPhase.DRAINING, slot="gpu:0", need=WHOLE),)
    third = policy.all(102, waits, on_gpu("rests", workers=leaving), wall=MONDAY)
    assert "waits for a worker to leave gpu:0" in third["waits"].reason
    policy.slots = (gpu(), gpu("gpu:1", free=0))
    assert policy.all(103, waits, on_gpu("rests"), wall=MONDAY)["waits"].start == ("gpu:0",)


@pytest.mark.parametrize(
    ("giver", "taker", "drained"),
    [
        ({}, {}, True),
        ({"priority": 1}, {}, False),
        ({}, {"priority": 1}, True),
        ({"min_workers": 1}, {}, False),
        ({"min_workers": 1}, {"priority": 1}, True),
    ],
)
def test_who_makes_room_for_whom(giver, taker, drained):
    rests = on_gpu("rests", workers=gpu_idle("r"), **giver)
    decisions = Policy((gpu(free=0),)).all(100, on_gpu("waits", waiting=1, **taker), rests, wall=MONDAY)
    assert bool(decisions["rests"].drain) is drained


def test_a_model_whose_own_jobs_wait_gives_nothing():
    rests = on_gpu("rests", waiting=1, workers=gpu_idle("r"))
    decisions = Policy((gpu(free=0),)).all(100, on_gpu("waits", waiting=1, priority=9), rests, wall=MONDAY)
    assert decisions["rests"].drain == ()


def test_jobs_between_two_attempts_wait_as_others_do():
    rests = on_gpu("rests", workers=gpu_idle("r"))
    decisions = Policy((gpu(free=0),)).all(100, on_gpu("retries", held=1), rests, wall=MONDAY)
    assert decisions["rests"].drain == ("r",)
    kept = on_gpu("rests", held=1, workers=gpu_idle("r"))
    decisions = Policy((gpu(free=0),)).all(100, on_gpu("waits", waiting=1, priority=9), kept, wall=MONDAY)
    assert decisions["rests"].drain == ()


def test_nobody_makes_room_for_a_worker_that_only_keeps_a_minimum():
    decisions = Policy((gpu(free=0),)).all(
        100, on_gpu("keeps", min_workers=1), on_gpu("rests", workers=gpu_idle("r")), wall=MONDAY
    )
    assert decisions["rests"].drain == ()


@pytest.mark.parametrize("jobs", [1, 0])
def test_busy_workers_make_no_room_even_if_nobody_knows_their_jobs(jobs):
    rests = on_gpu("rests", held=1, workers=busy("r", slot="gpu:0", need=WHOLE, jobs=jobs))
    decisions = Policy((gpu(free=0),)).all(100, on_gpu("waits", waiting=1, priority=9), rests, wall=MONDAY)
    assert decisions["rests"].drain == ()


def test_as_few_as_will_do_make_room_and_the_less_important_first():
    policy = Policy((gpu("gpu:0", free=0), gpu("gpu:1", free=8)))
    small = gpu_idle("s0", slot="gpu:0", need=EIGHT_GB) + gpu_idle("s1", slot="gpu:1", need=EIGHT_GB)
    waits = on_gpu("waits", waiting=1, need=Need(SlotKind.GPU, 16 * GB), priority=2)
    decisions = policy.all(100, waits, on_gpu("small", workers=small, need=EIGHT_GB), wall=MONDAY)
    assert decisions["small"].drain == ("s1",)


def test_two_models_that_always_have_work_change_places_once_a_cooldown():
    """Each worker is idle for a second after each of its jobs, whatever else waits."""
    policy = Policy((gpu(free=0),))
    holder, changes, at = "a", [], 0.0
    policy.slots = (gpu(free=24),)
    policy.all(0, on_gpu("a", waiting=1, cooldown_s=20), on_gpu("b", waiting=1, cooldown_s=20), wall=MONDAY)
    policy.slots = (gpu(free=0),)
    for second in range(1, 300):
        at = float(second)
        views = []
        for name in ("a", "b"):
            here = gpu_idle(name + str(len(changes)), since=at) if name == holder else ()
            views.append(on_gpu(name, workers=here, waiting=0 if here else 1, cooldown_s=20))
        decisions = policy.all(at, *views, wall=MONDAY)
        if decisions[holder].drain:
            changes.append(second)
            holder = "b" if holder == "a" else "a"
            policy.slots = (gpu(),)
            started = policy.all(
                at + 0.5,
                *(on_gpu(name, waiting=int(name == holder), cooldown_s=20) for name in ("a", "b")),
                wall=MONDAY,
            )
            assert started[holder].start == ("gpu:0",)
            policy.slots = (gpu(free=0),)
    assert len(changes) > 5
    assert all(later - earlier >= 20 for earlier, later in itertools.pairwise(changes))


def test_what_is_there_twice_is_there_once():
    decisions = Policy((gpu(), gpu())).all(0, on_gpu("a", waiting=9), on_gpu("a", waiting=9), wall=MONDAY)
    assert decisions["a"].start == ("gpu:0",)
