"""What is wrong with a queue, and what is not: every alert's condition, and its sentence."""

from datetime import UTC, datetime

import msgspec
import pytest
from alert_cases import SETTINGS, view

from headrace_contracts.alert import AlertName
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.scaling import Scaling, Window
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.alerting.conditions import Condition, Judged, Reading, conditions, judged_of
from headrace_scaler.policy.decision import Blocked, ModelDecision
from headrace_scaler.policy.observation import ModelView

HOLDS, BETWEEN, GONE = Reading
BUSY, STARTING, DRAINING, UNHEALTHY = (
    WorkerPhase.BUSY,
    WorkerPhase.STARTING,
    WorkerPhase.DRAINING,
    WorkerPhase.UNHEALTHY,
)


def condition(name: AlertName, model: ModelView, judged: Judged | None = None) -> Condition:
    return conditions(model, judged or Judged("m"), SETTINGS)[name]


@pytest.mark.parametrize(
    ("waiting", "reading", "says"),
    [
        (101, HOLDS, "101 jobs wait, 100 or more; 1 worker of at most 4"),
        (100, HOLDS, "100 jobs wait, 100 or more; 1 worker of at most 4"),
        (99, BETWEEN, "99 jobs wait, 50 or more; 1 worker of at most 4"),
        (50, BETWEEN, "50 jobs wait, 50 or more; 1 worker of at most 4"),
        (49, GONE, "49 jobs wait, less than 50; 1 worker of at most 4"),
        (1, GONE, "1 job waits, less than 50; 1 worker of at most 4"),
        (0, GONE, "no jobs wait, less than 50; 1 worker of at most 4"),
    ],
)
def test_a_backlog_is_entered_at_its_threshold_and_left_below_half_of_it(
    waiting: int, reading: Reading, says: str
) -> None:
    assert condition(AlertName.BACKLOG, view(waiting)) == Condition(reading, says)


@pytest.mark.parametrize(("age_s", "reading"), [(60.0, HOLDS), (59.9, BETWEEN), (30.0, BETWEEN), (29.9, GONE)])
def test_an_age_is_entered_at_its_threshold_and_left_below_half_of_it(age_s: float, reading: Reading) -> None:
    found = condition(AlertName.OLDEST_AGE, view(1, oldest_wait_s=age_s))

    assert found.reading is reading
    assert found.says.startswith(f"the oldest job has waited for {age_s:.1f} s, ")


def test_a_threshold_of_0_means_never() -> None:
    off = ScalerSettings(alert_backlog_jobs=0, alert_oldest_age_s=0.0)

    found = conditions(view(10**6, oldest_wait_s=1e6), Judged("m"), off)

    assert {found[name].reading for name in (AlertName.BACKLOG, AlertName.OLDEST_AGE)} == {GONE}


@pytest.mark.parametrize(
    ("waiting", "phases", "start", "reading", "says"),
    [
        (3, (), 0, HOLDS, "3 jobs wait, and no worker is ready or on its way: no slot has room"),
        (
            3,
            (DRAINING, UNHEALTHY),
            0,
            HOLDS,
            "3 jobs wait, and no worker is ready or on its way (2 that drain or cannot start are there): "
            "no slot has room",
        ),
        (3, (), 1, BETWEEN, "3 jobs wait, and 1 worker is starting"),
        (3, (STARTING,), 0, BETWEEN, "3 jobs wait, and 1 worker is starting"),
        (3, (BUSY, STARTING), 0, GONE, "3 jobs wait, and 1 worker is ready"),
        (0, (), 0, GONE, "no jobs wait"),
    ],
)
def test_no_worker_is_over_only_when_one_is_ready(
    waiting: int, phases: tuple[WorkerPhase, ...], start: int, reading: Reading, says: str
) -> None:
    judged = Judged("m", target=1, start=start, blocked=Blocked.NO_SLOT, reason="no slot has room")

    assert condition(AlertName.NO_WORKER, view(waiting, phases=phases), judged) == Condition(reading, says)


def test_a_paused_model_misses_no_worker() -> None:
    model = view(3, phases=(), paused=True)

    assert condition(AlertName.NO_WORKER, model).reading is GONE
    assert condition(AlertName.SATURATION, model, Judged("m", blocked=Blocked.NO_SLOT)).reading is GONE


@pytest.mark.parametrize(
    ("blocked", "target", "phases", "reading"),
    [
        ("crash_loop", 1, (), HOLDS),
        ("crash_loop", 1, (BUSY,), HOLDS),
        ("backoff", 1, (BUSY,), BETWEEN),
        ("", 1, (), BETWEEN),
        ("", 1, (STARTING,), BETWEEN),
        ("", 1, (UNHEALTHY,), BETWEEN),
        ("", 0, (STARTING,), BETWEEN),
        ("", 1, (BUSY,), GONE),
        ("", 0, (), GONE),
    ],
)
def test_a_crash_loop_is_over_when_a_start_succeeded_or_none_is_wanted(
    blocked: str, target: int, phases: tuple[WorkerPhase, ...], reading: Reading
) -> None:
    found = condition(AlertName.CRASH_LOOP, view(1, phases=phases), Judged("m", target, blocked=Blocked(blocked)))

    assert found.reading is reading


def test_a_crash_loop_says_what_the_decision_says() -> None:
    judged = Judged("m", 1, blocked=Blocked.CRASH_LOOP, reason="5 starts in a row failed, the last: exit status 1")

    found = condition(AlertName.CRASH_LOOP, view(1), judged)

    assert found.says == "workers keep failing to start: 5 starts in a row failed, the last: exit status 1"


@pytest.mark.parametrize("blocked", [Blocked.MAX_WORKERS, Blocked.NO_SLOT, Blocked.NEVER_FITS])
def test_saturation_needs_both_work_and_a_reason(blocked: Blocked) -> None:
    assert condition(AlertName.SATURATION, view(1), Judged("m", blocked=Blocked(blocked))).reading is HOLDS
    assert condition(AlertName.SATURATION, view(0), Judged("m", blocked=Blocked(blocked))).reading is GONE
    assert condition(AlertName.SATURATION, view(1), Judged("m")).reading is GONE
    # A model that cannot start has room.
    assert condition(AlertName.SATURATION, view(1), Judged("m", blocked=Blocked.CRASH_LOOP)).reading is GONE


def test_the_bounds_are_those_that_the_schedule_gives_now() -> None:
    mornings = Window("0 8 * * *", duration_s=3600.0, max_workers=1)
    model = msgspec.structs.replace(view(7), scaling=Scaling(max_workers=4, schedule=(mornings,)))
    decision = ModelDecision("m", target=1, start=("cpu",), reason="why", blocked=Blocked.MAX_WORKERS)

    judged = judged_of(model, decision, datetime(2026, 1, 1, 8, 30, tzinfo=UTC))

    assert judged == Judged("m", 1, 1, Blocked.MAX_WORKERS, "why", min_workers=0, max_workers=1)
    assert condition(AlertName.SATURATION, model, judged).says == (
        "7 jobs wait, and `max_workers` are there; 2 workers of at most 1"
    )
    later = judged_of(model, decision, datetime(2026, 1, 1, 9, 30, tzinfo=UTC))
    assert later.max_workers == 4
