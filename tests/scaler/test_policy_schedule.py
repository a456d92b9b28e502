"""Bounds by the time of day, in the timezone of those who work then."""

from datetime import UTC, datetime

import pytest
from policy_views import Policy, idle, model

from headrace_contracts.scaling import Scaling, Window
from headrace_scaler.policy.schedule import bounds_at, window_problem

OFFICE_HOURS = Window(cron="0 8 * * mon-fri", duration_s=10 * 3600, timezone="Europe/Berlin", min_workers=8)


def bounds(when: str, *windows: Window, least: int = 0, most: int = 10) -> tuple[int, int]:
    scaling = Scaling(min_workers=least, max_workers=most, schedule=windows)
    found = bounds_at(scaling, datetime.fromisoformat(when).astimezone(UTC))
    return found.minimum, found.maximum


@pytest.mark.parametrize(
    ("when", "minimum"),
    [
        ("2026-01-05T07:59:59+01:00", 0),
        ("2026-01-05T08:00:00+01:00", 8),
        ("2026-01-05T17:59:59+01:00", 8),
        ("2026-01-05T18:00:00+01:00", 0),
        ("2026-01-04T12:00:00+01:00", 0),  # Sunday
        ("2026-07-06T06:00:00+00:00", 8),  # 8 in summer is 6 in UTC
        ("2026-07-06T05:59:00+00:00", 0),
        ("2026-03-30T08:00:00+02:00", 8),  # the morning after the clocks went forward
    ],
)
def test_a_window_is_read_in_its_timezone(when, minimum):
    assert bounds(when, OFFICE_HOURS) == (minimum, 10)


@pytest.mark.parametrize(
    ("when", "minimum"),
    [
        ("2026-03-29T03:00:00+02:00", 1),  # 2:30 is skipped that night: it begins as soon as the clock goes on
        ("2026-03-29T01:59:00+01:00", 0),
        ("2026-10-25T02:30:00+02:00", 1),  # 2:30 is there twice: it begins once
        ("2026-10-25T02:30:00+01:00", 0),
    ],
)
def test_the_nights_in_which_the_clocks_change(when, minimum):
    night = Window(cron="30 2 * * *", duration_s=1800, timezone="Europe/Berlin", min_workers=1)
    assert bounds(when, night) == (minimum, 10)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cron": "0 8 * *"}, "5 fields"),
        ({"duration_s": 0.0}, "above 0"),
        ({"duration_s": float("nan")}, "above 0"),
        ({"min_workers": -1}, "negative"),
        ({"min_workers": 3, "max_workers": 2}, "min > max"),
    ],
)
def test_a_window_that_cannot_be_is_refused_where_it_is_written(values, said):
    with pytest.raises(ValueError, match=said):
        Window(**{"cron": "0 8 * * *", "duration_s": 60.0, **values})


def test_a_window_may_last_longer_than_until_it_begins_again():
    always = Window(cron="0 0 * * *", duration_s=3 * 86400, max_workers=2)
    assert bounds("2026-01-05T13:00:00+00:00", always) == (0, 2)


def test_the_most_of_one_window_and_the_fewest_of_another_may_not_fit():
    most = Window(cron="0 0 * * *", duration_s=86400, max_workers=2)
    fewest = Window(cron="0 0 * * *", duration_s=86400, min_workers=5)
    assert bounds("2026-01-05T13:00:00+00:00", fewest, most) == (2, 2)


def test_the_later_window_holds_bound_by_bound():
    day = Window(cron="0 0 * * *", duration_s=86400, min_workers=2, max_workers=4)
    noon = Window(cron="0 12 * * *", duration_s=3600, max_workers=3)
    assert bounds("2026-01-05T12:30:00+00:00", day, noon) == (2, 3)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window(cron="* * * * *", duration_s=60, min_workers=8), (8, 8)),
        (Window(cron="* * * * *", duration_s=60, max_workers=1), (1, 1)),
        (Window(cron="* * * * *", duration_s=60, min_workers=8, max_workers=9), (8, 9)),
    ],
)
def test_a_bound_of_a_window_moves_the_other_one(window, expected):
    assert bounds("2026-01-05T12:00:30+00:00", window, least=2, most=4) == expected


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (Window(cron="61 8 * * *", duration_s=60), "Bad minute"),
        (Window(cron="0 8 * * *", duration_s=60, timezone="Mars/Base"), "Mars/Base"),
        (Window(cron="0 8 * * *", duration_s=60, timezone="../etc/passwd"), "no timezone"),
    ],
)
def test_a_window_that_cannot_be_read_is_named_and_changes_nothing(window, said):
    assert said in window_problem(window)
    decision = Policy().at(0, model(scaling=Scaling(max_workers=4, schedule=(window,)), waiting=2))
    assert decision.target == 2
    assert said in decision.reason


def test_a_window_of_thousands_of_years_holds_for_as_long():
    assert bounds("2026-01-05T12:00:00+00:00", Window(cron="0 8 * * *", duration_s=1e300, max_workers=1)) == (0, 10)


def test_workers_are_there_in_the_window_and_go_after_it():
    window = Window(cron="0 8 * * *", duration_s=3600, min_workers=3)
    scaling = Scaling(max_workers=4, schedule=(window,), scale_down_delay_s=0, idle_timeout_s=0, cooldown_s=0)
    policy = Policy()
    assert policy.at(0, model(scaling=scaling), wall=datetime(2026, 1, 5, 7, 59, tzinfo=UTC)).start == ()
    inside = policy.at(60, model(scaling=scaling), wall=datetime(2026, 1, 5, 8, 0, tzinfo=UTC))
    assert (inside.target, len(inside.start)) == (3, 3)
    there = idle("a", "b", "c", since=100)
    kept = policy.at(3000, model(scaling=scaling, workers=there), wall=datetime(2026, 1, 5, 8, 59, tzinfo=UTC))
    assert (kept.target, kept.drain) == (3, ())
    after = policy.at(3660, model(scaling=scaling, workers=there), wall=datetime(2026, 1, 5, 9, 0, tzinfo=UTC))
    assert len(after.drain) == 2
