"""How a stream or consumer differs from the one we want. Pure."""

from nats.js import api

# Settings we leave alone and that would break a promise if somebody else made them: jobs that vanish by age, acks that
# nobody waits for, headers that escape a subject, redeliveries at times of the server's own.
_MUST_STAY_OFF = (
    "max_age",
    "no_ack",
    "sealed",
    "mirror",
    "allow_rollup_hdrs",
    "allow_msg_schedules",
    "backoff",
    "inactive_threshold",
    "headers_only",
    "rate_limit_bps",
)

# Compared although our value is the client's default.
_ALWAYS_OURS = ("ack_policy", "deliver_policy", "replay_policy")


def differences(
    wanted: api.StreamConfig | api.ConsumerConfig, found: api.StreamConfig | api.ConsumerConfig
) -> tuple[str, ...]:
    """Every setting of ours that is another on the broker, as in `max_bytes is 10, not 20`; empty if none is.

    The server fills in what neither we nor anybody else set; that is no difference.
    """
    unset = vars(type(wanted)())
    changed = [
        f"{field} is {_plain(getattr(found, field))}, not {_plain(value)}"
        for field, value in vars(wanted).items()
        if value is not None and (value != unset[field] or field in _ALWAYS_OURS) and getattr(found, field) != value
    ]
    added = [
        f"{field} is {_plain(getattr(found, field))} and must not be set"
        for field in _MUST_STAY_OFF
        if field in unset and getattr(wanted, field) == unset[field] and getattr(found, field)
    ]
    return (*changed, *added)


def _plain(value: object) -> str:
    """As the server writes it: enumerations by their value."""
    return repr(getattr(value, "value", value))
