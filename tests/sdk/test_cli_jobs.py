"""`headrace result`, `watch`, `cancel`, `status` and `models`, as processes of their own."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import Headrace
from staged_worker import StagedWorker

from headrace import Client
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerStatus
from headrace_storage.workers import put_status

pytestmark = pytest.mark.slow
RED = {"text": "red", "finish_reason": "stop", "seed": 7}


async def test_a_result_needs_only_the_id(client: Client, worker: StagedWorker, headrace_command: Headrace) -> None:
    job = await client.submit("write", prompt="x")
    waiting = await headrace_command("result", job.id)
    await worker.succeed(job, RED)
    for arguments in (["--model", "write"], ["--no-wait"]):
        ended = await (await headrace_command("result", job.id, *arguments)).end()
        assert (ended.code, ended.out) == (0, "red\n")
    assert (await waiting.end()).out == "red\n"


async def test_files_of_an_old_result_are_fetched(
    client: Client, worker: StagedWorker, headrace_command: Headrace, tmp_path: Path
) -> None:
    job = await client.submit("draw", prompt="star")
    picture = await worker.store(client, job, "image-0.png", b"a picture")
    await worker.succeed(job, {"images": ["image-0.png"]}, (picture,))

    named = await (await headrace_command("result", job.id)).end()
    saved = await (await headrace_command("result", job.id, "-o", str(tmp_path), "--json")).end()

    assert named.out == "image-0.png\timage/png\t9 bytes\n"
    assert f"headrace result {job.id} -o FOLDER" in named.err
    assert json.loads(saved.out)["saved"] == [str(tmp_path / "image-0.png")]
    assert (tmp_path / "image-0.png").read_bytes() == b"a picture"


async def test_an_artifact_that_would_leave_its_folder_is_refused(
    client: Client, worker: StagedWorker, headrace_command: Headrace, tmp_path: Path
) -> None:
    job = await client.submit("draw", prompt="star")
    evil = await worker.store(client, job, "../evil.png", b"a picture")
    await worker.succeed(job, {"images": ["../evil.png"]}, (evil,))
    ended = await (await headrace_command("result", job.id, "-o", str(tmp_path / "out"))).end()
    assert ended.code == 1
    assert "is no plain file name" in ended.err
    assert list(tmp_path.rglob("*.png")) == []


async def test_watch_prints_events_until_the_end(
    client: Client, worker: StagedWorker, headrace_command: Headrace
) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.start(job)
    await worker.progress(job, 1, 2)
    await worker.fail(job, "no ink")
    ended = await (await headrace_command("watch", job.id)).end()
    assert ended.code == 1
    assert [line.split(" ", 1)[1] for line in ended.out.splitlines()] == [
        "started on staged",
        "1 of 2",
        "failed on staged: queued 0.25 s, run 1.50 s",
    ]


async def test_status_of_a_job(client: Client, worker: StagedWorker, headrace_command: Headrace) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.start(job)
    await worker.progress(job, 1, 2)
    ended = await (await headrace_command("status", job.id)).end()
    assert (ended.code, ended.out) == (0, f"{job.id} running (attempt 1, on staged, 50% done)\n")
    as_json = json.loads((await (await headrace_command("status", job.id, "--json")).end()).out)
    assert (as_json["state"], as_json["worker"], as_json["done"], as_json["result"]) == ("running", "staged", 0.5, None)
    unknown = await (await headrace_command("status", "nobody", "--model", "draw")).end()
    assert (unknown.code, unknown.out) == (2, "nobody unknown\n")


async def test_cancel(client: Client, headrace_command: Headrace) -> None:
    job = await client.submit("draw", prompt="star")
    assert (await (await headrace_command("cancel", job.id)).end()).out == f"{job.id} canceled\n"
    assert (await (await headrace_command("cancel", job.id)).end()).out == f"{job.id} already canceled\n"
    result = await (await headrace_command("result", job.id)).end()
    assert result.code == 1
    assert "error: canceled by its submitter [canceled, fault: input]" in result.err


async def test_the_overview_counts_jobs_and_workers(client: Client, headrace_command: Headrace) -> None:
    now = datetime.now(UTC)
    engines = (
        EngineStatus("hear", EngineState.LOADING, 1, (), 0, "fetching weights"),
        EngineStatus("write", EngineState.READY, 8, ("a", "b"), 1),
    )
    await put_status(client.connection, WorkerStatus("w1", "host-1", 7, now, now, False, engines))
    await client.submit_many("hear", [{"audio": b"RIFF"}] * 3, lane="low")

    status = (await (await headrace_command("status")).end()).out.splitlines()
    listed = [line.split("\t") for line in (await (await headrace_command("models")).end()).out.splitlines()]

    assert "hear\tloading\t0\t0\t3\t0" in status
    assert "w1\thost-1\thear\tloading\t0\t1\tfetching weights" in status
    assert "w1\thost-1\twrite\tready\t2\t8\t" in status
    assert listed[0] == ["NAME", "TASK", "ENGINE", "VERSION", "WORKERS", "WAITING", "RUNNING"]
    assert ["hear", "speech-to-text", "faster_whisper", "1", "loading", "3", "0"] in listed
    assert next(row for row in listed if row[0] == "draw")[:5] == ["draw", "text-to-image", "diffusers", "1", "none"]
    as_json = json.loads((await (await headrace_command("models", "list", "--json")).end()).out)
    assert {row["name"]: row["workers"] for row in as_json}["write"] == "ready"


async def test_what_a_model_takes(headrace_command: Headrace) -> None:
    shown = await (await headrace_command("models", "show", "draw")).end()
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.out.splitlines()}
    assert rows["prompt"] == ["text", "(required)", "at least 1 characters; at most 200 characters"]
    assert rows["steps"] == ["int", "", "at least 1; at most 50"]
    assert rows["format"] == ["png | jpeg | webp", "png", ""] or rows["format"][1] == "png"
    audio = (await (await headrace_command("models", "show", "hear")).end()).out
    assert "audio\tfile\t(required)\tat most 300000 bytes; at most 7200 s" in audio
    as_json = json.loads((await (await headrace_command("models", "show", "draw", "--json")).end()).out)
    assert as_json["input"]["$defs"]["TextToImageInput"]["required"] == ["prompt"]


async def test_models_are_added_all_or_none_and_removed(
    client: Client, headrace_command: Headrace, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('name = "good"\ntask = "synthetic"\nengine = "synthetic"\n')
    bad.write_text('name = "bad"\ntask = "synthetic"\nengine = "diffusers"\n')

    refused = await (await headrace_command("models", "add", str(good), str(bad))).end()
    assert refused.code == 2
    assert f"error: {bad}: engine `diffusers` does `text-to-image`" in refused.err
    assert "good" not in [spec.name for spec in await client.models()]

    assert (await (await headrace_command("models", "add", str(good))).end()).out == "added good\n"
    assert [lane.waiting for lane in await client.backlog("good")] == [0, 0, 0]
    assert (await (await headrace_command("models", "rm", "good")).end()).out == "removed good\n"
    assert "good" not in [spec.name for spec in await client.models()]
