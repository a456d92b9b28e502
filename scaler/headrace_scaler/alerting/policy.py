"""When a condition becomes an alert, and when that is over: values in, messages and new state out.

A condition must hold for `alert_after_s` before its alert fires, and be gone for as long before it is resolved. One
message says that it began, one that it ended; between them it is told again every REPEAT_S.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from headrace_contracts.alert import Alert, AlertName, AlertState
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.alerting.conditions import (
    Condition,
    Judged,
    Reading,
    conditions,
    most_workers,
    workers_there,
)
from headrace_scaler.policy.observation import ModelView, Observation

REPEAT_S = 300.0
"""A firing alert is told again. Longer: whoever starts to listen learns of it later; shorter: pagers get more."""


class Track(msgspec.Struct, frozen=True):
    """One alert of one model, between two looks. Times are those of the observer's monotonic clock."""

    turning_since: float | None = None
    """Since when the condition holds, of an alert that does not fire; since when it is gone, of one that does."""
    firing_since: datetime | None = None
    """When it began to fire; None: it does not."""
    told_at: float = 0.0
    """When it was last told that it fires."""


Tracks = Mapping[str, Mapping[AlertName, Track]]
"""All alerts of all models."""

_UNTOUCHED = Track()


def alerts(
    observation: Observation,
    judged: Iterable[Judged],
    tracks: Tracks,
    settings: ScalerSettings,
    now: float,
    wall: datetime,
) -> tuple[tuple[Alert, ...], dict[str, dict[AlertName, Track]]]:
    """What there is to tell, and the state for the next look.

    Args:
        observation: all models there are: alerts of one that is missing are resolved at once.
        judged: what was decided for them.
        tracks: the state of the look before; empty at first, or what `taken_over` makes of another leader's.
        settings: the thresholds, and `alert_after_s`.
        now: the observer's monotonic clock.
        wall: the same moment for people.
    """
    verdicts = {one.model: one for one in judged}
    messages: list[Alert] = []
    after: dict[str, dict[AlertName, Track]] = {}
    for view in observation.models:
        verdict = verdicts.get(view.name, Judged(view.name))
        before = tracks.get(view.name, {})
        after[view.name] = {}
        for name, condition in conditions(view, verdict, settings).items():
            track = before.get(name, _UNTOUCHED)
            state, after[view.name][name] = step(track, condition.reading, settings.alert_after_s, now, wall)
            if state is not None:
                since = track.firing_since or wall
                reason = _sentence(condition, track, state, now)
                messages.append(_alert(view, verdict, name, state, since, wall, reason))
    for model in sorted(tracks.keys() - after.keys()):
        messages += _removed(model, tracks[model], wall)
    return tuple(messages), after


def step(track: Track, reading: Reading, after_s: float, now: float, wall: datetime) -> tuple[AlertState | None, Track]:
    """One alert, one look: what is to be told (None: nothing) and how it stands then."""
    fires = track.firing_since is not None
    if reading is (Reading.GONE if fires else Reading.HOLDS):
        since = now if track.turning_since is None else track.turning_since
        if now - since >= after_s:
            return (AlertState.RESOLVED, Track()) if fires else (AlertState.FIRING, Track(None, wall, now))
    else:
        since = None
    if fires and now - track.told_at >= REPEAT_S:
        return AlertState.FIRING, Track(since, track.firing_since, now)
    return None, Track(since, track.firing_since, track.told_at)


def taken_over(firing: Mapping[AlertName, datetime], told_at: float) -> dict[AlertName, Track]:
    """The state of a model whose alerts were told by another leader, or by ourselves before."""
    return {name: Track(None, since, told_at) for name, since in firing.items()}


def _sentence(condition: Condition, track: Track, state: AlertState, now: float) -> str:
    for_s = 0.0 if track.turning_since is None else now - track.turning_since
    if state is AlertState.FIRING and track.firing_since is not None:
        return condition.says
    return f"{condition.says}, for {for_s:.1f} s"


def _alert(
    view: ModelView, judged: Judged, name: AlertName, state: AlertState, since: datetime, wall: datetime, reason: str
) -> Alert:
    return Alert(
        alert=name,
        state=state,
        model=view.name,
        at=wall,
        since=since,
        reason=reason,
        waiting=view.waiting,
        held=view.held,
        oldest_wait_s=view.oldest_wait_s,
        workers=workers_there(view, judged),
        max_workers=most_workers(view, judged),
    )


def _removed(model: str, tracks: Mapping[AlertName, Track], wall: datetime) -> list[Alert]:
    """The end of all alerts of a model that is not there any more."""
    reason = "the model was removed"
    return [
        Alert(name, AlertState.RESOLVED, model, wall, track.firing_since, reason, 0, 0, 0.0, 0, 0)
        for name, track in tracks.items()
        if track.firing_since is not None
    ]
