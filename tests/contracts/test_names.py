"""Names on the broker: what is allowed, and that every subject reads back as what it was made from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts import names
from headrace_contracts.errors import InvalidName
from headrace_contracts.names import JobAddress, Lane

TOKENS = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")


@given(TOKENS, TOKENS, st.sampled_from(Lane))
def test_a_job_subject_reads_back(tenant: str, model: str, lane: Lane) -> None:
    assert names.parse_jobs_subject(names.jobs_subject(tenant, model, lane)) == JobAddress(tenant, model, lane)


@given(TOKENS, TOKENS, TOKENS)
def test_the_job_id_reads_back_from_every_subject(tenant: str, model: str, job_id: str) -> None:
    for subject in (
        names.results_subject(tenant, model, job_id),
        names.events_subject(tenant, model, job_id, "started"),
        names.dead_subject(tenant, model, job_id),
        names.cancel_subject(tenant, model, job_id),
    ):
        assert names.job_id_of_subject(subject) == job_id


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "*", ">", "a" * 65, "ä", "a\n", "\x00", "a/b", "$SYS"])
def test_other_characters_are_refused_everywhere(bad: str) -> None:
    for make in (
        lambda: names.jobs_subject(bad, "m", Lane.LOW),
        lambda: names.jobs_subject("t", bad, Lane.LOW),
        lambda: names.results_subject("t", "m", bad),
        lambda: names.consumer_name(bad, Lane.LOW),
        lambda: names.artifact_prefix("t", "m", "j", bad),
    ):
        with pytest.raises(InvalidName, match="use 1 to 64 of the characters"):
            make()


@pytest.mark.parametrize(
    "subject", ["jobs.t.m", "jobs.t.m.fast", "results.t.m.high", "jobs.t.m.high.x", "jobs.t..high"]
)
def test_a_subject_that_is_no_job_is_refused(subject: str) -> None:
    with pytest.raises(InvalidName):
        names.parse_jobs_subject(subject)


def test_artifacts_of_two_attempts_never_share_a_key() -> None:
    assert names.artifact_prefix("t", "m", "j", "1-a") == "t/m/j/1-a/"
    assert names.artifact_prefix("t", "m", "j", "2-b") != names.artifact_prefix("t", "m", "j", "1-a")
