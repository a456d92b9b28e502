"""Messages of the JOBS stream become jobs, or say why they are none."""

from datetime import UTC, datetime

import pytest

from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.job import decode_job
from headrace_contracts.names import Lane

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = "jobs.acme.shapes.high"


def test_only_input_is_required() -> None:
    job = decode_job(SUBJECT, None, b'{"input": {"prompt": "x"}}', 7, NOW)
    assert (job.id, job.tenant, job.model, job.lane, job.created_at) == ("seq-7", "acme", "shapes", Lane.HIGH, NOW)
    assert bytes(job.body.input) == b'{"prompt": "x"}'


def test_an_id_of_the_clients_own_is_taken_from_its_header() -> None:
    assert decode_job(SUBJECT, {"Nats-Msg-Id": "order-5"}, b'{"input": {}}', 7, NOW).id == "order-5"


@pytest.mark.parametrize(
    ("data", "headers", "reason"),
    [
        (b"{}", None, "missing required field `input`"),
        (b'{"input": {}, "inputs": {}}', None, "unknown field `inputs`"),
        (b'{"input": {}, "timeout_s": 0}', None, "`timeout_s` is 0 and must be over 0"),
        (b'{"input": {}, "ttl_s": 1e9}', None, "`ttl_s` is 1e+09 and must be over 0 and at most 86400"),
        (b'{"input": {}, "metadata": {"a": [1]}}', None, "$.metadata"),
        (b'{"input": {}}', {"Nats-Msg-Id": "a b"}, "job id 'a b' is not valid"),
        (b'{"input": {}}', {"Nats-Msg-Id": "a.b"}, "job id 'a.b' is not valid"),
        (b"not json", None, "neither a JSON object nor a MessagePack map"),
        (b'{"input": {', None, "truncated"),
    ],
)
def test_what_is_no_job_says_why(data: bytes, headers: dict[str, str] | None, reason: str) -> None:
    with pytest.raises(UndecodableMessage) as refused:
        decode_job(SUBJECT, headers, data, 7, NOW)
    assert reason in refused.value.reason
    assert refused.value.data == data
