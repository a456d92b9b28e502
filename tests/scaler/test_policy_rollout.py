"""Workers of an older entry are replaced one after the other, when they are idle."""

from policy_views import Policy, busy, idle, model, starting

from headrace_contracts.scaling import Scaling

THREE = Scaling(min_workers=3, max_workers=3)


def test_one_goes_and_the_next_only_when_its_place_is_taken():
    policy = Policy()
    old = idle("a", "b", "c")
    first = policy.at(100, model(scaling=THREE, workers=old, outdated=("a", "b", "c"), version="2"))
    assert (first.drain, first.start) == (("a",), ())
    second = policy.at(101, model(scaling=THREE, workers=old[1:], outdated=("b", "c"), version="2"))
    assert (second.drain, len(second.start)) == ((), 1)
    coming = old[1:] + starting("d", since=101)
    third = policy.at(102, model(scaling=THREE, workers=coming, outdated=("b", "c"), version="2"))
    assert (third.drain, third.start) == ((), ())
    there = old[1:] + idle("d", since=110)
    assert policy.at(110, model(scaling=THREE, workers=there, outdated=("b", "c"), version="2")).drain == ()
    # The cooldown is 10 s from the start of its replacement.
    fourth = policy.at(111, model(scaling=THREE, workers=there, outdated=("b", "c"), version="2"))
    assert fourth.drain == ("b",)


def test_busy_ones_are_waited_for():
    view = model(scaling=THREE, held=3, workers=busy("a", "b", "c"), outdated=("a", "b", "c"))
    assert Policy().at(100, view).drain == ()


def test_an_entry_that_cannot_run_takes_no_more_workers_of_the_old_one():
    policy = Policy()
    old = idle("a", "b", "c")
    policy.at(100, model(scaling=THREE, workers=old, outdated=("a", "b", "c"), version="2"))
    policy.at(101, model(scaling=THREE, workers=old[1:], outdated=("b", "c"), version="2"))
    for at in range(102, 400):
        failed = (f"w{at}",) if at % 50 == 0 else ()
        view = model(scaling=THREE, workers=old[1:], outdated=("b", "c"), version="2", failed=failed)
        assert policy.at(at, view).drain == ()
    fewer = Scaling(min_workers=2, max_workers=3, scale_down_delay_s=0)
    for at in range(400, 430):
        assert policy.at(at, model(scaling=fewer, workers=old[1:], outdated=("b", "c"), version="2")).drain == ()


def test_outdated_ones_go_first_when_there_are_too_many():
    scaling = Scaling(max_workers=3, scale_down_delay_s=0, cooldown_s=0, idle_timeout_s=1000)
    there = idle("old", since=90) + idle("a", "b", since=0)
    assert Policy().at(100, model(scaling=scaling, workers=there, outdated=("old",))).drain == ("old",)


def test_others_workers_are_not_replaced():
    there = idle("a", ours=False)
    assert Policy().at(100, model(scaling=Scaling(min_workers=1), workers=there, outdated=("a",))).drain == ()
