"""Tells alerts: keeps their state, publishes them in order, and picks up where another leader left off.

The stream is the truth about what was told. The last message of a model says which of its alerts fire, and a message
is stored only behind the one it was made for (`tell_alert`). So a receipt that was lost, or a leader that was deposed
a moment ago, is found out at the next message, and neither makes an alert fire twice or stay for ever.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import msgspec
import structlog

from headrace_contracts.alert import Alert, AlertName, AlertState
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.alerting.conditions import Judged
from headrace_scaler.alerting.policy import REPEAT_S, Track, alerts, taken_over
from headrace_scaler.policy.observation import Observation
from headrace_storage.alerts import Told, alert_told, alerts_told, tell_alert
from headrace_storage.connection import Connection
from headrace_storage.publishing import WrongLastSequence

# A broker whose disk is full lets every publish time out: so seldom that deciding goes on beside it.
RETRY_AFTER_S = 5.0
# Of one model. With so many waiting to be told, its state stays as it is until they are: memory has an end.
MOST_UNTOLD = 50

_log = structlog.get_logger()


class AlertBoard:
    """The alerts of one term of leadership: make a new one when the lease is won anew.

    Not for use by several tasks at once.
    """

    def __init__(self, settings: ScalerSettings, on_told: Callable[[Alert], None] = lambda _alert: None) -> None:
        """`on_told` is called with every alert that the broker has taken; it must not raise."""
        self._settings = settings
        self._on_told = on_told
        self._told: dict[str, Told] | None = None
        """What the stream says, by model; None until it was read."""
        self._tracks: dict[str, dict[AlertName, Track]] = {}
        self._untold: dict[str, list[Alert]] = {}
        """Waiting to be published, oldest first."""
        self._retry_at = 0.0

    @property
    def firing(self) -> dict[str, dict[AlertName, datetime]]:
        """What fires, by model, and since when."""
        firing = {
            model: {name: track.firing_since for name, track in tracks.items() if track.firing_since is not None}
            for model, tracks in self._tracks.items()
        }
        return {model: names for model, names in firing.items() if names}

    @property
    def untold(self) -> int:
        """Messages that the broker has not taken yet."""
        return sum(map(len, self._untold.values()))

    async def tell(
        self, connection: Connection, observation: Observation, judged: Iterable[Judged], now: float, wall: datetime
    ) -> None:
        """Find out what there is to tell, and publish it; what the broker does not take is told at a later look.

        Args:
            connection: the broker. Check right before that the lease is held.
            observation: all models there are.
            judged: what was decided for them.
            now: monotonic, of the observation.
            wall: the same moment for people.
        """
        try:
            if self._told is None and now >= self._retry_at:
                await self._read(connection, now, wall)
            if self._told is not None:
                self._judge(observation, judged, now, wall)
            if self._told is not None and now >= self._retry_at:
                await self._publish(connection, self._told, now, wall)
        except BrokerUnavailable as error:
            self._retry_at = now + RETRY_AFTER_S
            _log.warning("alerts not told", untold=self.untold, reason=str(error))

    async def _read(self, connection: Connection, now: float, wall: datetime) -> None:
        """Take over what was told before us."""
        self._told = await alerts_told(connection)
        self._tracks = {
            model: taken_over(told.firing, _told_at(told, now, wall))
            for model, told in self._told.items()
            if told.firing
        }

    def _judge(self, observation: Observation, judged: Iterable[Judged], now: float, wall: datetime) -> None:
        held_up = {model for model, waiting in self._untold.items() if len(waiting) >= MOST_UNTOLD}
        there = msgspec.structs.replace(
            observation, models=tuple(view for view in observation.models if view.name not in held_up)
        )
        tracks = {model: states for model, states in self._tracks.items() if model not in held_up}
        messages, after = alerts(there, judged, tracks, self._settings, now, wall)
        self._tracks = {**{model: self._tracks[model] for model in held_up & self._tracks.keys()}, **after}
        for message in messages:
            waiting = self._untold.setdefault(message.model, [])
            # A repeat says nothing beside what is still to be told of the same alert.
            if not _is_repeat(message) or all(one.alert != message.alert for one in waiting):
                waiting.append(message)
                _log.info(
                    f"alert {message.state}", alert=str(message.alert), model=message.model, reason=message.reason
                )

    async def _publish(self, connection: Connection, told: dict[str, Told], now: float, wall: datetime) -> None:
        for model in list(self._untold):
            waiting = self._untold[model]
            while waiting:
                last = told.get(model, Told())
                message = with_firing(waiting[0], last.firing)
                try:
                    sequence = await tell_alert(connection, message, last.sequence)
                except WrongLastSequence:
                    told[model] = await alert_told(connection, model)
                    if told[model].sequence == last.sequence:
                        reason = "it refuses what it says it would take"
                        raise BrokerUnavailable(connection.url, reason) from None
                    self._agree_with(model, told[model], now, wall)
                    waiting = self._untold[model]
                    continue
                told[model] = Told(sequence, message.firing, message.at)
                waiting.pop(0)
                self._on_told(message)
            del self._untold[model]

    def _agree_with(self, model: str, told: Told, now: float, wall: datetime) -> None:
        """Somebody told something else, or our own message was stored without a receipt: begin from there."""
        self._untold[model], firing = still_to_tell(self._untold[model], told.firing)
        told_at = _told_at(told, now, wall)
        before = self._tracks.get(model, {})
        names = before.keys() | firing.keys()
        if not names:
            return
        self._tracks[model] = {name: _agreed(before.get(name, Track()), firing.get(name), told_at) for name in names}


def with_firing(message: Alert, before: Mapping[AlertName, datetime]) -> Alert:
    """The message, saying all that fires after it."""
    firing = {name: since for name, since in before.items() if name != message.alert}
    if message.state is AlertState.FIRING:
        firing[message.alert] = message.since
    return msgspec.structs.replace(message, firing=firing)


def still_to_tell(
    waiting: Iterable[Alert], told: Mapping[AlertName, datetime]
) -> tuple[list[Alert], dict[AlertName, datetime]]:
    """Of messages that wait, those that are news after what was told; and what fires after them."""
    firing = dict(told)
    news = []
    for message in waiting:
        fires = message.alert in firing
        if message.state is AlertState.RESOLVED and fires:
            news.append(msgspec.structs.replace(message, since=firing.pop(message.alert)))
        elif message.state is AlertState.FIRING and not fires and not _is_repeat(message):
            firing[message.alert] = message.since
            news.append(message)
    return news, firing


def _agreed(track: Track, since: datetime | None, told_at: float) -> Track:
    """A track that fires since then (None: not); how long its condition has turned counts if that is as before."""
    turning = track.turning_since if (track.firing_since is None) == (since is None) else None
    return Track(turning, since, told_at)


def _is_repeat(message: Alert) -> bool:
    return message.state is AlertState.FIRING and message.since != message.at


def _told_at(told: Told, now: float, wall: datetime) -> float:
    """Our clock's time of a message from another clock, which may differ: not in the future, and due by now at most."""
    age_s = 0.0 if told.at is None else (wall - told.at).total_seconds()
    return now - min(max(age_s, 0.0), REPEAT_S)
