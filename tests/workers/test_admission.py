"""Who may run: decided from the job, the model and the clock alone."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from headrace_contracts.errors import InvalidInput, InvalidSpec
from headrace_contracts.job import decode_job
from headrace_contracts.model import EngineKind, ModelSpec, Timeouts
from headrace_contracts.tasks.registry import Task
from headrace_workers import admission
from headrace_workers.outcome import Expired

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = ModelSpec(
    "m",
    Task.TEXT_TO_IMAGE,
    EngineKind.DIFFUSERS,
    defaults={"steps": 20, "guidance_scale": 5},
    timeouts=Timeouts(queue_s=60),
)
SPEECH = ModelSpec("m", Task.SPEECH_TO_TEXT, EngineKind.FASTER_WHISPER)


def job(body: dict[str, object]):
    return decode_job("jobs.acme.m.normal", None, json.dumps(body).encode(), 1, NOW)


@pytest.mark.parametrize(
    ("ttl_s", "waited_s", "late"), [(5, 4, False), (5, 6, True), (None, 59, False), (None, 61, True)]
)
def test_a_job_may_wait_for_its_own_ttl_or_the_models(ttl_s: float | None, waited_s: float, late: bool) -> None:
    waiting = job({"input": {}} | ({"ttl_s": ttl_s} if ttl_s else {}))
    if late:
        with pytest.raises(Expired, match=f"waited {waited_s:.1f} s"):
            admission.check_waiting_time(waiting, IMAGE, NOW + timedelta(seconds=waited_s))
    else:
        admission.check_waiting_time(waiting, IMAGE, NOW + timedelta(seconds=waited_s))


def test_the_models_defaults_fill_what_a_job_leaves_out() -> None:
    read = admission.read_input(job({"input": {"prompt": "x", "steps": 3}}), IMAGE)
    assert (read.steps, read.guidance_scale, read.seed) == (3, 5.0, None)


def test_a_file_of_another_tenant_is_refused() -> None:
    def audio(key: str) -> dict[str, object]:
        return {"input": {"audio": {"$blob": key, "sha256": "0" * 64, "size_bytes": 1}}}

    admission.read_input(job(audio("acme/inputs/a")), SPEECH)
    for key in (
        *("other/inputs/a", "acmee/inputs/a", "acme", "acme/", "", "ACME/inputs/a", " acme/inputs/a"),
        *("acme/../other/inputs/a", "acme/./../other/a", "../other/a", "acme/..", "acme//other/a", "acme/.hidden"),
        *(
            "acme/%2e%2e/other/a",
            "acme/..%2fother/a",
            "acme%2f..%2fother",
            "acme/\\..\\other",
            "acme/\u2024\u2024/other",
        ),
        *("/acme/a", "//host/acme/a", "file:///acme/a", "s3://other-bucket/acme/a", "http://127.0.0.1/acme/a"),
        *("other-bucket:acme/a", "acme/a?versionId=1", "acme/a#x", "acme/a\0", "acme/a\n", "acme/*", "acme/a/"),
        "acme/" + "x" * 600,
    ):
        with pytest.raises(InvalidInput, match=r"input\.audio: the blob is not one of tenant acme"):
            admission.read_input(job(audio(key)), SPEECH)


def test_a_default_that_is_no_field_is_named() -> None:
    wrong = ModelSpec("m", Task.TEXT_TO_IMAGE, EngineKind.DIFFUSERS, defaults={"stepz": 1})
    with pytest.raises(InvalidSpec, match="`stepz`"):
        admission.check_defaults(wrong)
