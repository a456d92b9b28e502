"""What holds for whatever the policy is told, however absurd."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from policy_views import GB

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.scaling import Scaling, Window
from headrace_scaler.policy.decide import decide
from headrace_scaler.policy.decision import Decided
from headrace_scaler.policy.observation import FailedStart, ModelView, Need, Observation, Slot, WorkerView
from headrace_scaler.policy.schedule import bounds_at
from headrace_scaler.policy.starts import backoff_s
from headrace_scaler.policy.state import Level, Mark, ModelState, Starts, State

NAMES = ("painter", "writer", "mixer")
SLOTS = ("cpu", "gpu:0", "gpu:1")
NOW = 1000.0
WALL = datetime(2026, 1, 5, 9, tzinfo=UTC)

times = st.one_of(st.floats(0, 2000), st.sampled_from([NOW, NOW - 1, NOW - 60, float("-inf")]))
wild = st.floats(allow_nan=True, allow_infinity=True)
seconds = st.one_of(st.sampled_from([0.0, 1.0, 10.0, 60.0]), st.floats(0, 1e9))
counts = st.one_of(st.integers(0, 12), st.integers(-3, 10**7))
needs = st.builds(Need, st.sampled_from(SlotKind), st.sampled_from([0, 1, 2, 8 * GB, 16 * GB, 99 * GB, -1]))
worker_ids = st.sampled_from([f"{name}-{index}" for name in NAMES for index in range(5)])
marks = st.lists(st.builds(Mark, worker_ids, times), max_size=4).map(tuple)
failures = st.builds(FailedStart, worker_ids, st.sampled_from(["", "exit status 1"]))
windows = st.builds(
    lambda cron, duration_s, timezone, least, more: Window(
        cron, duration_s, timezone, least, None if more is None else (least or 0) + more
    ),
    st.sampled_from(["* * * * *", "0 8 * * mon-fri", "0 9 * * *", "what is this of course"]),
    st.sampled_from([1.0, 3600.0, 1e300]),
    st.sampled_from(["UTC", "Europe/Berlin", "Mars/Base", ""]),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 4),
)


@st.composite
def scalings(draw) -> Scaling:
    least, more = draw(st.integers(0, 3)), draw(st.integers(0, 8))
    return Scaling(
        min_workers=least,
        max_workers=least + more,
        buffer_workers=draw(st.integers(0, 3)),
        target_jobs_per_worker=draw(st.one_of(st.sampled_from([0.0, 1.0, 4.0]), st.floats(0, 1e6))),
        target_wait_s=draw(seconds),
        target_utilization=draw(st.one_of(st.just(1.0), st.floats(1e-9, 1))),
        scale_up_window_s=draw(seconds),
        scale_down_delay_s=draw(seconds),
        scale_down_step=draw(st.integers(0, 3)),
        idle_timeout_s=draw(seconds),
        cooldown_s=draw(seconds),
        priority=draw(st.integers(-1, 1)),
        start_timeout_s=draw(seconds),
        schedule=tuple(draw(st.lists(windows, max_size=2))),
    )


@st.composite
def views(draw, name: str) -> ModelView:
    own = st.sampled_from([f"{name}-{index}" for index in range(5)])
    crew = draw(
        st.lists(
            st.builds(
                WorkerView,
                id=own,
                phase=st.sampled_from(WorkerPhase),
                since=times,
                jobs=st.integers(-1, 2),
                slot=st.sampled_from([*SLOTS, "", "elsewhere"]),
                need=needs,
                ours=st.booleans(),
            ),
            max_size=5,
            unique_by=lambda worker: worker.id,
        )
    )
    return ModelView(
        name=name,
        scaling=draw(scalings()),
        need=draw(needs),
        jobs_per_worker=draw(st.integers(-1, 8)),
        load_timeout_s=draw(seconds),
        waiting=draw(counts),
        held=draw(counts),
        oldest_wait_s=draw(wild),
        arrival_rate=draw(wild),
        service_s=draw(st.none() | wild),
        workers=tuple(crew),
        failed_starts=tuple(
            draw(st.lists(st.builds(FailedStart, worker_ids, st.sampled_from(["", "exit status 1"])), max_size=3))
        ),
        version=draw(st.sampled_from(["1", "2"])),
        outdated=tuple(draw(st.lists(own, max_size=4))),
        paused=draw(st.booleans()),
    )


@st.composite
def observations(draw) -> Observation:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
    slots = [
        Slot(
            id_,
            SlotKind.CPU if id_ == "cpu" else SlotKind.GPU,
            (size := draw(st.sampled_from([0, 8, 24 * GB]))),
            draw(st.one_of(st.just(size), st.integers(-1, 30 * GB))),
            draw(st.sampled_from(["", "", "Xid 79"])),
        )
        for id_ in draw(st.lists(st.sampled_from(SLOTS), max_size=3, unique=True))
    ]
    return Observation(tuple(draw(views(name)) for name in names), tuple(slots))


levels = st.lists(st.builds(Level, times, st.integers(0, 12)), max_size=4).map(tuple)
model_states = st.builds(
    ModelState,
    name=st.sampled_from(NAMES),
    version=st.sampled_from(["", "1", "2"]),
    arrival_rate=st.floats(0, 1e6),
    rate_at=st.none() | times,
    highs=levels,
    lows=levels,
    worked_at=times,
    scaled_up_at=times,
    scaled_down_at=times,
    leaving=marks,
    starts=st.builds(
        Starts,
        failures=st.integers(0, 2000),
        rounds=st.integers(0, 2000),
        failed_at=times,
        tried_at=times,
        last_reason=st.sampled_from(["", "exit status 1"]),
        ready=st.lists(worker_ids, max_size=3).map(tuple),
        recovering=marks,
        broken=marks,
        stopped=marks,
    ),
)
states = st.builds(State, st.lists(model_states, max_size=3).map(tuple))
anything = given(observations(), states)
many = settings(max_examples=100, deadline=None)


def decided(observation: Observation, state: State, now: float = NOW) -> Decided:
    return decide(observation, state, now, WALL + timedelta(seconds=now - NOW))


@given(observations(), states, st.one_of(st.just(NOW), wild))
@many
def test_it_answers_for_every_model_says_why_and_answers_the_same_again(observation, state, now):
    answer = decide(observation, state, now, WALL)
    assert [decision.model for decision in answer.models] == [view.name for view in observation.models]
    assert all(decision.reason for decision in answer.models)
    # Compared as text: a number that is none is not equal to itself.
    assert repr(decide(observation, state, now, WALL)) == repr(answer)


@anything
@many
def test_only_idle_workers_of_ours_are_drained_and_only_useless_ones_are_ended(observation, state):
    for view, decision in zip(observation.models, decided(observation, state).models, strict=True):
        crew = {worker.id: worker for worker in view.workers}
        for id_ in decision.drain:
            assert crew[id_].ours
            assert crew[id_].phase is WorkerPhase.IDLE
            assert crew[id_].jobs <= 0
        for stop in decision.stop:
            assert crew[stop.worker].ours
            assert crew[stop.worker].phase in (WorkerPhase.STARTING, WorkerPhase.UNHEALTHY)
            assert crew[stop.worker].jobs <= 0
            assert stop.reason
        assert len(set(decision.drain)) == len(decision.drain)


@anything
@many
def test_the_target_is_within_the_bounds_or_what_is_busy_and_no_more_are_started(observation, state):
    for view, decision in zip(observation.models, decided(observation, state).models, strict=True):
        bounds = bounds_at(view.scaling, WALL)
        busy = sum(worker.phase is WorkerPhase.BUSY for worker in view.workers)
        assert max(bounds.minimum, busy) <= decision.target <= max(bounds.maximum, busy)
        ready = busy + sum(worker.phase is WorkerPhase.IDLE for worker in view.workers)
        assert not decision.start or ready + len(decision.start) <= decision.target


@anything
@many
def test_no_slot_is_given_more_than_it_has(observation, state):
    slots = {slot.id: slot for slot in observation.slots}
    given_away = dict.fromkeys(slots, 0)
    for view, decision in zip(observation.models, decided(observation, state).models, strict=True):
        for id_ in decision.start:
            assert slots[id_].kind is view.need.kind
            assert not slots[id_].quarantined
            whole = view.need.kind is SlotKind.GPU and view.need.size <= 0
            given_away[id_] += slots[id_].size if whole else max(0, view.need.size)
    for id_, size in given_away.items():
        assert size <= max(0, min(slots[id_].free, slots[id_].size))


@anything
@many
def test_after_a_failure_nothing_is_started_before_its_time_and_then_one(observation, state):
    before = {model.name: model.starts for model in state.models}
    answer = decided(observation, state)
    for decision, after in zip(answer.models, answer.state.models, strict=True):
        starts = after.starts
        if not starts.failures:
            continue
        assert len(decision.start) <= 1
        tried_at = before[after.name].tried_at if after.name in before else float("-inf")
        if decision.start and starts.tried_at == NOW:
            assert NOW - max(starts.failed_at, tried_at) >= backoff_s(starts)


@anything
@many
def test_asked_again_at_once_it_orders_nothing_new(observation, state):
    """Starts are asked for until they are seen; drains and ends are ordered once."""
    first = decided(observation, state)
    if any(view.scaling.cooldown_s == 0 for view in observation.models):
        return
    again = Observation(
        tuple(
            ModelView(**{name: getattr(view, name) for name in view.__struct_fields__} | {"failed_starts": ()})
            for view in observation.models
        ),
        observation.slots,
    )
    second = decided(again, first.state)
    for one, two in zip(first.models, second.models, strict=True):
        assert (two.drain, two.stop) == ((), ())
        assert two.target == one.target
        assert two.start in ((), one.start)
