"""Dead letters: kept with their reason, found by id, run again once, dropped."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerUnavailable, NoDeadLetter, QueueFull
from headrace_contracts.names import NAMELESS
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage import redrive as redriving
from headrace_storage.connection import Connection
from headrace_storage.dead import (
    bury,
    count_letters,
    letters_of,
    newest_letters,
    oldest_letters,
    remove_letter,
    remove_letters,
)
from headrace_storage.redrive import NotRedrivable, new_id_of, redrive, why_it_may_fail_again
from headrace_storage.results import commit_result
from headrace_storage.topology import StorageLimits, ensure_topology

BODY = b'{"input":{"prompt":"secret"}}'


@pytest_asyncio.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    async with (
        NatsServer(tmp_path, sync_always=False) as server,
        Connection(NatsSettings(url=server.url)) as connection,
    ):
        await ensure_topology(connection, StorageLimits(jobs_per_subject=50))
        yield connection


_sequence = iter(range(1, 1_000_000))


async def kill(connection: Connection, job_id: str, tenant: str = "t", model: str = "m", **changes: object) -> None:
    """Bury one message, as a worker does."""
    given: dict = {
        "original_subject": f"jobs.{tenant}.{model}.normal",
        "headers": {"Content-Type": "application/json", "Nats-Msg-Id": job_id, "traceparent": "00-1-2-01"},
        "data": BODY,
        "reason": "it broke",
        "sequence": next(_sequence),
    }
    await bury(connection, tenant, model, job_id, **{**given, **changes})


async def jobs(connection: Connection) -> list[tuple[str, dict[str, str], bytes]]:
    info = await connection.js.stream_info("JOBS")
    messages = [
        await connection.js.get_msg("JOBS", seq=n) for n in range(info.state.first_seq, info.state.last_seq + 1)
    ]
    return [(m.subject, dict(m.headers or {}), m.data or b"") for m in messages]


async def test_a_letter_has_what_the_worker_knew(connection: Connection) -> None:
    await kill(connection, "a", reason="line one\nline two")
    [letter] = await letters_of(connection, "a")
    assert (letter.tenant, letter.model, letter.job_id) == ("t", "m", "a")
    assert (letter.reason, letter.original_subject) == ("line one line two", "jobs.t.m.normal")
    assert (letter.data, letter.size_bytes) == (BODY, len(BODY))
    assert letter.headers == {"Content-Type": "application/json", "traceparent": "00-1-2-01"}
    assert abs((datetime.now(UTC) - letter.buried_at).total_seconds()) < 60


async def test_the_engines_last_lines_are_read_where_they_were_kept(connection: Connection) -> None:
    headers = {"Headrace-Reason": "crashed", "Headrace-Subject": "jobs.t.m.low", "Headrace-Last-Lines": "one | two"}
    await connection.js.publish("dead.t.m.a", BODY, headers=headers)
    [letter] = await letters_of(connection, "a")
    assert letter.last_lines == ("one", "two")


async def test_a_client_cannot_speak_as_a_worker(connection: Connection) -> None:
    forged = {"headrace-last-lines": "forged", "Headrace-Reason": "forged", "Headrace-Left-Out-Bytes": "99"}
    await kill(connection, "a", headers=forged)
    [letter] = await letters_of(connection, "a")
    assert (letter.reason, letter.last_lines, letter.body_kept) == ("it broke", (), True)


async def test_letters_are_listed_newest_first_by_tenant_and_model(connection: Connection) -> None:
    for number in range(40):
        await kill(connection, f"j{number}", tenant=f"t{number % 2}", model=f"m{number % 4}")
    assert [letter.job_id for letter in await newest_letters(connection, 3)] == ["j39", "j38", "j37"]
    assert [letter.job_id for letter in await newest_letters(connection, 3, model="m0")] == ["j36", "j32", "j28"]
    assert [letter.job_id for letter in await newest_letters(connection, 2, tenant="t1", model="m3")] == ["j39", "j35"]
    assert await newest_letters(connection, 5, model="nobody") == []
    assert len(await newest_letters(connection, 1000)) == await count_letters(connection) == 40
    assert (await newest_letters(connection, 1))[0].data is None, "bodies are not held for a list"


async def test_a_large_stream_is_read_in_pages_and_leaves_no_consumer(connection: Connection) -> None:
    await kill(connection, "rare", model="rare")
    for number in range(2500):
        await connection.nc.publish(f"dead.t.m.x{number}", b"x" * 2000)
    await connection.nc.flush()
    while (await connection.js.stream_info("DEAD")).state.messages < 2501:
        pass
    assert [letter.job_id for letter in await newest_letters(connection, 1, model="rare")] == ["rare"]
    assert len(await newest_letters(connection, 2000)) == 2000
    assert len([letter async for letter in oldest_letters(connection)]) == 2501
    assert (await letters_of(connection, "rare"))[0].sequence == 1
    assert (await connection.js.stream_info("DEAD")).state.consumer_count == 0


async def test_a_message_that_looks_like_the_end_of_a_list_ends_none(connection: Connection) -> None:
    """Any client can give its message the header by which the server says that there is no more."""
    await kill(connection, "first")
    await kill(connection, "hostile", headers={"Status": "404", "Nats-Sequence": "7"})
    await kill(connection, "last")
    assert [letter.job_id for letter in await newest_letters(connection, 9)] == ["last", "hostile", "first"]
    assert [letter.job_id async for letter in oldest_letters(connection)] == ["first", "hostile", "last"]
    assert (await letters_of(connection, "hostile"))[0].sequence == 2


async def test_an_unknown_id_is_a_clear_error(connection: Connection) -> None:
    with pytest.raises(NoDeadLetter, match="there is no dead letter of a job 'nobody'"):
        await letters_of(connection, "nobody")


async def test_a_redrive_publishes_the_message_under_a_new_id_and_then_removes_the_letter(
    connection: Connection,
) -> None:
    await kill(connection, "a")
    [letter] = await letters_of(connection, "a")
    done = await redrive(connection, letter)
    assert (done.old_id, done.new_id, done.already_there) == ("a", f"a-r{letter.sequence}", False)
    [(subject, headers, data)] = await jobs(connection)
    assert (subject, data) == ("jobs.t.m.normal", BODY)
    assert headers == {
        "Content-Type": "application/json",
        "traceparent": "00-1-2-01",
        "Headrace-Redrive-Of": "a",
        "Nats-Msg-Id": done.new_id,
    }
    assert await count_letters(connection) == 0


async def test_what_was_said_of_the_old_job_is_not_said_of_the_new_one(connection: Connection) -> None:
    """The id and the time of a forwarded job would win over the new ones."""
    said = {"headrace-job-id": "a", "Headrace-Submitted-At": "2020-01-01T00:00:00Z", "headrace-redrive-of": "b"}
    await kill(connection, "a", headers=said)
    [letter] = await letters_of(connection, "a")
    done = await redrive(connection, letter)
    [(_, headers, _)] = await jobs(connection)
    assert headers == {"Headrace-Redrive-Of": "a", "Nats-Msg-Id": done.new_id}


async def test_a_redrive_after_a_lost_receipt_does_not_run_the_job_twice(connection: Connection) -> None:
    """The same letter again, as a command that was killed before it removed the letter would send it."""
    await kill(connection, "a")
    [letter] = await letters_of(connection, "a")
    await redrive(connection, letter)
    again = await redrive(connection, letter)
    assert again.already_there
    assert len(await jobs(connection)) == 1


async def test_a_redrive_is_recognised_when_the_broker_has_forgotten_the_id(connection: Connection) -> None:
    """Past its window of duplicates: while the job waits, and when it has ended."""
    await kill(connection, "a")
    [letter] = await letters_of(connection, "a")
    new_id = new_id_of(letter)
    config = (await connection.js.stream_info("JOBS")).config
    await connection.js.update_stream(config.evolve(duplicate_window=0.1))
    await redrive(connection, letter)
    await until_forgotten(connection)
    assert (await redrive(connection, letter)).already_there
    assert (await connection.js.stream_info("JOBS")).state.messages == 1

    await connection.js.purge_stream("JOBS")
    now = datetime.now(UTC)
    ended = Result(new_id, "m", "1", Status.SUCCEEDED, msgspec.Raw(b"null"), 1, now, now)
    await commit_result(connection, "t", ended, Encoding.JSON)
    assert (await redrive(connection, letter)).already_there
    assert (await connection.js.stream_info("JOBS")).state.messages == 0


async def until_forgotten(connection: Connection) -> None:
    """Wait until the broker takes an id again that it took before."""
    mark = {"Nats-Msg-Id": uuid.uuid4().hex}
    await connection.js.publish("jobs.other.m.low", b"{}", headers=dict(mark))
    while (await connection.js.publish("jobs.other.m.low", b"{}", headers=dict(mark))).duplicate:
        pass
    await connection.js.purge_stream("JOBS", subject="jobs.other.m.low")


async def test_several_letters_of_one_id_become_several_jobs(connection: Connection) -> None:
    await kill(connection, "a")
    await kill(connection, "a", tenant="other")
    await kill(connection, "a")
    letters = await letters_of(connection, "a")
    assert [letter.tenant for letter in letters] == ["t", "other", "t"]
    assert len({(await redrive(connection, letter)).new_id for letter in letters}) == 3
    assert len(await jobs(connection)) == 3
    assert [letter.tenant for letter in letters if letter.tenant == "other"] == ["other"]


async def test_ids_stay_short_however_often_a_job_dies(connection: Connection) -> None:
    job_id = "x" * 64
    for _ in range(3):
        headers = {"Headrace-Redrive-Of": "before"} if "-r" in job_id else {}
        await kill(connection, job_id, headers=headers)
        [letter] = await letters_of(connection, job_id)
        job_id = (await redrive(connection, letter)).new_id
        assert len(job_id) <= 64
        assert job_id.count("-r") == 1


async def test_a_message_of_a_tenant_without_a_name_can_be_redriven(connection: Connection) -> None:
    await kill(connection, "seq-7", tenant=NAMELESS, model=NAMELESS, original_subject="jobs.ténant.m.normal")
    [letter] = await letters_of(connection, "seq-7")
    assert "not valid" in (why_it_may_fail_again(letter) or "")
    await redrive(connection, letter)
    assert [subject for subject, _, _ in await jobs(connection)] == ["jobs.ténant.m.normal"]


async def test_an_undecodable_message_can_be_redriven_and_is_doubted(connection: Connection) -> None:
    await kill(connection, "a", data=b"\x00\xff", headers={})
    await kill(connection, "b")
    [undecodable], [good] = await letters_of(connection, "a"), await letters_of(connection, "b")
    assert "neither a JSON object" in (why_it_may_fail_again(undecodable) or "")
    assert why_it_may_fail_again(good) is None
    await redrive(connection, undecodable)
    assert [data for _, _, data in await jobs(connection)] == [b"\x00\xff"]


async def test_a_letter_stays_while_the_queue_takes_nothing(connection: Connection) -> None:
    for _ in range(50):
        await connection.js.publish("jobs.t.m.normal", b"{}")
    await kill(connection, "a")
    [letter] = await letters_of(connection, "a")
    with pytest.raises(QueueFull):
        await redrive(connection, letter)
    assert await count_letters(connection) == 1


async def test_a_letter_stays_while_there_is_no_receipt(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_receipt(*arguments: object) -> None:
        raise BrokerUnavailable("nats://nowhere", "no receipt")

    await kill(connection, "a")
    [letter] = await letters_of(connection, "a")
    monkeypatch.setattr(redriving, "publish", no_receipt)
    with pytest.raises(BrokerUnavailable):
        await redrive(connection, letter)
    assert await count_letters(connection) == 1


async def test_the_largest_message_is_kept_without_its_body(connection: Connection) -> None:
    """It leaves no room for the reason; the letter says so, and is not taken for an empty job."""
    largest = (8 << 20) - 200
    await kill(connection, "a", data=b"x" * largest, headers={"X-Large": "x" * 100})
    [letter] = await letters_of(connection, "a")
    assert (letter.data, letter.body_kept, letter.size_bytes) == (None, False, largest)
    with pytest.raises(NotRedrivable, match=f"its body of {largest} bytes was not kept"):
        await redrive(connection, letter)
    assert await count_letters(connection) == 1


async def test_a_message_of_another_stream_is_not_redriven(connection: Connection) -> None:
    await kill(connection, "a", original_subject="results.t.m.a")
    [letter] = await letters_of(connection, "a")
    with pytest.raises(NotRedrivable, match="no job's subject"):
        await redrive(connection, letter)


async def test_letters_are_removed_one_or_all(connection: Connection) -> None:
    for number in range(6):
        await kill(connection, f"j{number}", model=f"m{number % 2}")
    [letter] = await letters_of(connection, "j0")
    await remove_letter(connection, letter)
    await remove_letter(connection, letter)
    assert await remove_letters(connection, model="m1") == 3
    assert {letter.job_id for letter in await newest_letters(connection, 9)} == {"j2", "j4"}
    assert await remove_letters(connection) == 2
    assert await newest_letters(connection, 9) == []
