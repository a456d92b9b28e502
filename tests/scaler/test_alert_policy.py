"""One message when an alert begins, one when it ends; no flapping, whatever the queue does."""

from collections.abc import Sequence

from alert_cases import BACKLOG, SETTINGS, seen, view, wall
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.alert import Alert, AlertName, AlertState
from headrace_contracts.heartbeat import WorkerPhase
from headrace_scaler.alerting.conditions import Judged, Reading
from headrace_scaler.alerting.policy import REPEAT_S, Track, alerts, step, taken_over
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.observation import ModelView

FIRING, RESOLVED = AlertState
AFTER_S = SETTINGS.alert_after_s


class Queue:
    """Looks at a model again and again."""

    def __init__(self) -> None:
        self.tracks: dict[str, dict[AlertName, Track]] = {}
        self.told: list[Alert] = []

    def look(self, now: float, *views: ModelView, judged: Sequence[Judged] = ()) -> list[Alert]:
        messages, self.tracks = alerts(seen(*views), judged, self.tracks, SETTINGS, now, wall(now))
        self.told += messages
        return list(messages)


def test_a_backlog_fires_after_it_has_held_and_is_resolved_after_it_has_been_gone() -> None:
    queue = Queue()

    assert queue.look(0.0, view(120)) == []
    assert queue.look(4.9, view(130)) == []
    [began] = queue.look(5.0, view(140))
    assert queue.look(6.0, view(140)) == []
    assert queue.look(7.0, view(70)) == []
    assert queue.look(8.0, view(40)) == []
    [ended] = queue.look(13.0, view(30))
    assert queue.look(14.0, view(30)) == []

    assert began == Alert(
        alert=BACKLOG,
        state=FIRING,
        model="m",
        at=wall(5.0),
        since=wall(5.0),
        reason="140 jobs wait, 100 or more; 1 worker of at most 4, for 5.0 s",
        waiting=140,
        held=1,
        oldest_wait_s=0.0,
        workers=1,
        max_workers=4,
    )
    assert (ended.state, ended.since, ended.at) == (RESOLVED, wall(5.0), wall(13.0))
    assert ended.reason == "30 jobs wait, less than 50; 1 worker of at most 4, for 5.0 s"


def test_what_fires_is_told_again_with_the_same_beginning() -> None:
    queue = Queue()
    for now in range(700):
        queue.look(float(now), view(150))

    assert [(one.state, one.at, one.since) for one in queue.told] == [
        (FIRING, wall(now), wall(5.0)) for now in (5.0, 5.0 + REPEAT_S, 5.0 + 2 * REPEAT_S)
    ]


def test_the_alerts_of_a_model_that_was_removed_are_resolved_at_once() -> None:
    queue = Queue()
    queue.look(0.0, view(120, oldest_wait_s=90.0), view(120, name="other"))
    queue.look(6.0, view(120, oldest_wait_s=90.0), view(120, name="other"))

    ended = queue.look(7.0, view(120, name="other"))

    assert {(one.alert, one.state, one.model) for one in ended} == {
        (BACKLOG, RESOLVED, "m"),
        (AlertName.OLDEST_AGE, RESOLVED, "m"),
    }
    assert {one.reason for one in ended} == {"the model was removed"}
    assert queue.look(8.0, view(120, name="other")) == []


def test_all_five_fire_with_their_reasons() -> None:
    queue = Queue()
    stuck = view(120, oldest_wait_s=90.0, phases=(), failed="exit status 1")
    crowded = view(1, name="crowded")
    judged = [Judged("m", 1, blocked=Blocked.CRASH_LOOP), Judged("crowded", 4, blocked=Blocked.NO_SLOT)]

    queue.look(0.0, stuck, crowded, judged=judged)
    queue.look(5.0, stuck, crowded, judged=judged)

    assert {(one.model, one.alert) for one in queue.told} == {
        ("m", BACKLOG),
        ("m", AlertName.OLDEST_AGE),
        ("m", AlertName.NO_WORKER),
        ("m", AlertName.CRASH_LOOP),
        ("crowded", AlertName.SATURATION),
    }


def test_a_worker_that_starts_again_and_again_is_one_alert() -> None:
    """A crash loop lets a worker start now and then: `no_worker` neither ends nor begins anew with each of them."""
    queue = Queue()
    for now in range(200):
        phases = (WorkerPhase.STARTING,) if now % 40 >= 20 else ()
        queue.look(float(now), view(1, phases=phases))

    assert [(one.alert, one.state) for one in queue.told] == [(AlertName.NO_WORKER, FIRING)]


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, AFTER_S * 0.9)), min_size=1, max_size=60), st.booleans())
def test_a_value_that_oscillates_faster_than_alert_after_s_tells_nothing(
    stretches: list[tuple[bool, float]], fires: bool
) -> None:
    """Whether the alert fires or not: no stretch above or below lasts long enough to change it."""
    track = Track(None, wall(0.0), 0.0) if fires else Track()
    now, above, told = 0.0, True, []
    for also_between, stretch_s in stretches:
        readings = [Reading.HOLDS if above else Reading.GONE]
        if also_between:
            readings.append(Reading.BETWEEN)
        for reading in readings:
            for moment in (now, now + stretch_s / len(readings)):
                state, track = step(track, reading, AFTER_S, moment, wall(moment))
                told.append(state)
            now = moment
        above = not above
    # Told again now and then, and nothing else.
    assert set(told) <= {None, FIRING}
    assert (track.firing_since is not None) == fires
    if not fires:
        assert set(told) == {None}


MODELS = st.sampled_from(["m", "n"])
LOOKS = st.lists(
    st.tuples(
        st.floats(0.0, 7.0),  # since the look before
        st.dictionaries(MODELS, st.tuples(st.sampled_from([0, 1, 49, 50, 99, 100, 5000]), st.booleans()), max_size=2),
        st.sampled_from([Blocked.NONE, Blocked.CRASH_LOOP, Blocked.NO_SLOT]),
        st.booleans(),  # another leader takes over
    ),
    max_size=80,
)


@given(LOOKS)
def test_every_firing_is_followed_by_exactly_one_resolved(
    looks: list[tuple[float, dict[str, tuple[int, bool]], Blocked, bool]],
) -> None:
    queue, now = Queue(), 0.0
    for after_s, models, blocked, takeover in looks:
        now += after_s
        if takeover:
            queue.tracks = {
                model: taken_over(
                    {name: track.firing_since for name, track in tracks.items() if track.firing_since is not None}, now
                )
                for model, tracks in queue.tracks.items()
            }
        views = [
            view(waiting, name=name, phases=(WorkerPhase.BUSY,) if ready else ())
            for name, (waiting, ready) in models.items()
        ]
        queue.look(now, *views, judged=[Judged(one.name, 1, blocked=blocked) for one in views])
    queue.look(now + 1.0)  # all models are gone

    firing = {}
    for one in queue.told:
        key = (one.model, one.alert)
        if one.state is FIRING:
            assert firing.setdefault(key, one.since) == one.since, "it fires twice"
        else:
            assert firing.pop(key, None) == one.since, "it ends without a beginning"
    assert firing == {}


@given(st.lists(st.tuples(st.floats(0.1, 30.0), st.integers(50, 200)), max_size=60))
def test_a_backlog_that_never_falls_below_the_lower_bound_is_not_resolved(looks: list[tuple[float, int]]) -> None:
    queue, now = Queue(), 0.0
    queue.look(now, view(100))
    now += AFTER_S
    queue.look(now, view(100))
    for after_s, waiting in looks:
        now += after_s
        queue.look(now, view(waiting))

    assert {one.state for one in queue.told} == {FIRING}
