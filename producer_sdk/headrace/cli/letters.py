"""Dead letters as text and as JSON. Pure."""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from headrace_contracts.result import Result
from headrace_storage.dead import DeadLetter

_AGES = ((86_400, "d"), (3600, "h"), (60, "min"))


def row_of(letter: DeadLetter, now: datetime) -> tuple[str, ...]:
    """Age, tenant, model, id, reason, size."""
    return (
        age(max(0.0, (now - letter.buried_at).total_seconds())),
        letter.tenant,
        letter.model,
        letter.job_id,
        letter.reason,
        f"{letter.size_bytes} bytes",
    )


def lines_of(letter: DeadLetter, result: Result | None, *, with_body: bool) -> Iterator[str]:
    """Everything that is known of one letter."""
    yield f"{letter.job_id} (dead letter {letter.sequence}, {letter.buried_at:%Y-%m-%d %H:%M:%S} UTC)"
    yield f"reason     {letter.reason}"
    yield f"published  {letter.original_subject}"
    for key, value in letter.headers.items():
        yield f"header     {key}: {value}"
    for line in letter.last_lines:
        yield f"engine     {line}"
    if result is None:
        yield "result     none"
    else:
        why = "" if result.error is None else f": {result.error.message} [{result.error.code}]"
        yield f"result     {result.status} after {result.attempts} attempts{why}"
    if letter.data is None:
        yield f"body       {letter.size_bytes} bytes, not kept: it did not fit beside the reason"
    elif with_body:
        yield f"body       {letter.size_bytes} bytes:"
        yield letter.data.decode("utf-8", "backslashreplace")
    else:
        yield f"body       {letter.size_bytes} bytes (--body prints it)"


def as_json_value(letter: DeadLetter, result: Result | None = None, *, with_body: bool = False) -> dict[str, object]:
    """A letter as JSON; the body, if wanted, in base64."""
    fields: dict[str, object] = {
        "id": letter.job_id,
        "tenant": letter.tenant,
        "model": letter.model,
        "sequence": letter.sequence,
        "buried_at": letter.buried_at,
        "reason": letter.reason,
        "last_lines": letter.last_lines,
        "subject": letter.original_subject,
        "headers": letter.headers,
        "size_bytes": letter.size_bytes,
        "body_kept": letter.body_kept,
    }
    if result is not None:
        error = None if result.error is None else msgspec.to_builtins(result.error)
        fields["result"] = {"status": result.status, "attempts": result.attempts, "error": error}
    if with_body and letter.data is not None:
        fields["body_base64"] = letter.data
    return fields


def age(seconds: float) -> str:
    """How long ago, in one unit."""
    for length, unit in _AGES:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
