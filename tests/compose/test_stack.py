"""The compose stack on a real Docker Engine: jobs from outside, scaling, crashes, metrics, alerts, and what it may do.

`make test-compose` runs it. The tests share one stack, and each leaves it working.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from engine.client import CommandFailed, Docker
from jobs import (
    JOB_DEADLINE_S,
    MODELS,
    a_picture_is_drawn,
    a_question_is_answered,
    all_succeeded,
    speech_is_written_down,
    succeeded,
)
from stack import LOOK_EVERY_S, REPOSITORY, Stack, Start, Step, backlog_fires, is_back, rule_fires, say, until
from tenants_files import only_its_tenants_files

from headrace import Client
from headrace_contracts.alert import AlertName
from headrace_storage.alerts import alert_told

pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(1200),
    # nats-py leaves the socket of a connection that a crash ended to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
]

SCALE_DEADLINE_S = 120.0
SCRAPE_DEADLINE_S = 60.0
# It fires after 30 s, and goes on for a minute, so that it does not flutter.
RULE_DEADLINE_S = 180.0
RECOVERY_DEADLINE_S = 90.0
# The scaler's default: as many waiting jobs are a backlog.
BACKLOG_JOBS = 100
NODE = REPOSITORY / "examples" / "node"


@pytest.fixture(scope="module")
def stack(start: Start) -> Iterator[Stack]:
    """The stack as `docker compose up` starts it."""
    stack = start()
    yield stack
    with Step("down"):
        stack.down()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stack: Stack) -> AsyncIterator[Client]:
    """A producer on this machine, with the key that the stack made for it."""
    async with Client(stack.client()) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(stack: Stack) -> AsyncIterator[Client]:
    """Who may all."""
    async with Client(stack.client("client/admin")) as client:
        yield client


async def scale(stack: Stack, model: str, *changes: str) -> None:
    """As an operator does it, inside."""
    await asyncio.to_thread(
        stack.compose, "run", "--rm", "--no-deps", "headrace", "scale", model, *changes, timeout_s=60
    )


async def test_every_model_answers_from_outside(stack: Stack, client: Client) -> None:
    for model, job in zip(MODELS, (a_picture_is_drawn, speech_is_written_down, a_question_is_answered), strict=True):
        with Step(f"{model}: a first result, from no worker"):
            await job(client)
        assert len(stack.workers(model)) == 1
        with Step(f"{model}: a second one, from a warm worker"):
            await job(client)


async def test_files_of_results_are_in_the_s3_server(stack: Stack, client: Client, admin: Client) -> None:
    settings = client.settings.s3
    assert settings is not None
    assert settings.endpoint_url == f"http://127.0.0.1:{stack.ports['S3_PORT']}"
    # The reader has no other way to it than S3, and checks the file's SHA-256.
    assert (await a_picture_is_drawn(client)).startswith(b"\x89PNG")
    streams = await admin.connection.js.streams_info()
    assert [stream.config.name for stream in streams if (stream.config.name or "").startswith("OBJ_")] == []


async def test_a_client_reaches_files_of_its_tenant_alone(client: Client, admin: Client) -> None:
    await only_its_tenants_files(client, admin)


async def test_log_lines_of_a_job_reach_whoever_sent_it(client: Client) -> None:
    job = await client.submit("tiny-shapes", prompt="a red star on a blue background", seed=1)
    await succeeded(job)
    async with asyncio.timeout(RECOVERY_DEADLINE_S):
        # They have no receipt, and come a moment after the result.
        while "job ended" not in {line.event for line in await job.logs()}:
            await asyncio.sleep(LOOK_EVERY_S)


async def test_a_node_client_that_never_saw_our_code_gets_an_answer(stack: Stack, admin: Client) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("NOT TESTED: without node and npm, nothing shows that other languages reach the stack")
    nats = admin.settings.nats
    assert nats.nkey is not None
    environment = {**os.environ, "NATS_URL": nats.url, "NATS_NKEY": nats.nkey, "NATS_INBOX_PREFIX": nats.inbox_prefix}

    def ask() -> subprocess.CompletedProcess[str]:
        if not (NODE / "node_modules").is_dir():
            packages = subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, capture_output=True, text=True
            )
            if packages.returncode != 0:
                pytest.skip("NOT TESTED: the Node client's packages cannot be installed")
        question = json.dumps({"prompt": "What is the capital of France?", "max_tokens": 20, "temperature": 0})
        command = ["node", "client.mjs", "smollm2-135m", question]
        return subprocess.run(
            command, cwd=NODE, env=environment, capture_output=True, text=True, timeout=JOB_DEADLINE_S
        )

    with Step("a Node client's job"):
        ran = await asyncio.to_thread(ask)
    assert ran.returncode == 0, ran.stderr
    assert "Paris" in json.loads(ran.stdout)["output"]["text"]


async def test_a_burst_starts_workers_fires_the_alert_and_all_of_it_ends(
    stack: Stack, client: Client, admin: Client
) -> None:
    model = "tiny-shapes"
    # Paused, so that the jobs are a backlog for sure.
    await scale(stack, model, "max=0", "idle_timeout_s=3", "scale_down_delay_s=3", "cooldown_s=0")
    with Step("to no worker"):
        await until("no worker is left", lambda: not stack.workers(model), SCALE_DEADLINE_S)
    inputs = [
        {"prompt": "a red star on a blue background", "steps": 2, "seed": seed} for seed in range(BACKLOG_JOBS + 8)
    ]
    jobs = await client.submit_many(model, inputs)
    with Step("the backlog alert fires"):
        await alert_is(admin, model, firing=True)
        await until("Prometheus has it", lambda: backlog_fires(stack, model), SCRAPE_DEADLINE_S)
    with Step("and so does Prometheus' own rule"):
        await until("HeadraceBacklog fires", lambda: rule_fires(stack, model), RULE_DEADLINE_S)
    await scale(stack, model, "max=2", "target_jobs_per_worker=8")
    began = time.monotonic()
    first = await until("a worker container runs", lambda: stack.workers(model), SCALE_DEADLINE_S)
    say(f"a worker container runs after {time.monotonic() - began:.1f} s")
    assert len(first) <= 2
    with Step(f"{len(jobs)} jobs done"):
        await all_succeeded(jobs)
    with Step("the backlog alert is over"):
        await alert_is(admin, model, firing=False)
    with Step("to no worker again"):
        await until("no worker is left", lambda: not stack.workers(model), SCALE_DEADLINE_S)


async def alert_is(admin: Client, model: str, *, firing: bool) -> None:
    """Wait until the scaler tells so on the alerts' stream."""
    async with asyncio.timeout(SCALE_DEADLINE_S):
        while (AlertName.BACKLOG in (await alert_told(admin.connection, model)).firing) is not firing:
            await asyncio.sleep(0.2)


async def test_a_worker_that_is_killed_while_it_works_costs_no_job(stack: Stack, client: Client) -> None:
    model = "smollm2-135m"
    prompts = [{"prompt": f"Tell a story about the number {number}.", "max_tokens": 48} for number in range(24)]
    jobs = await client.submit_many(model, prompts)
    await succeeded(jobs[0])
    [worker, *_] = await until("a worker runs", lambda: stack.workers(model), SCALE_DEADLINE_S)
    unfinished = [job for job in jobs if (await job.status()).state not in ("succeeded", "failed")]
    assert unfinished, "all were done before the kill: it shows nothing"
    stack.crash(worker)
    await until("that container is gone", lambda: worker not in stack.workers(model), SCALE_DEADLINE_S)
    with Step(f"{len(unfinished)} jobs done after a kill"):
        results = await all_succeeded(jobs)
    assert {result.worker for result in results} > {results[0].worker}, "no other worker took over"


async def test_a_broker_that_crashes_comes_back_with_every_accepted_job(stack: Stack, client: Client) -> None:
    inputs = [{"prompt": "a white ring on a green background", "steps": 20, "seed": seed} for seed in range(80)]
    jobs = await client.submit_many("tiny-shapes", inputs)
    broker = stack.container("nats")
    await succeeded(jobs[0])
    unfinished = [job for job in jobs if (await job.status()).state not in ("succeeded", "failed")]
    assert unfinished, "all were done before the crash: it shows nothing"
    started_at = stack.inspect(broker)["State"]["StartedAt"]
    stack.crash(broker)
    with Step("the broker back"):
        await until("it runs again", lambda: is_back(stack, broker, started_at), RECOVERY_DEADLINE_S)
    with Step(f"{len(unfinished)} jobs done after the broker's crash"):
        await all_succeeded(jobs)


async def test_prometheus_reads_every_target(stack: Stack, client: Client) -> None:
    jobs = [a_picture_is_drawn(client), a_question_is_answered(client)]
    await asyncio.gather(*jobs)
    workers = {stack.inspect(worker)["Config"]["Hostname"] for worker in stack.workers()}
    assert workers

    def all_up() -> list[dict[str, object]]:
        targets = stack.prometheus("targets")["activeTargets"]
        up = [target for target in targets if target["health"] == "up"]
        jobs = {target["labels"]["job"] for target in up}
        return up if len(up) == len(targets) and {"headrace-scaler", "headrace-worker"} <= jobs else []

    with Step("every target of Prometheus up"):
        up = await until("every target is up", all_up, SCRAPE_DEADLINE_S)
    say(", ".join(str(target["scrapeUrl"]) for target in up))


async def test_the_backlog_rule_is_over_once_nothing_waits(stack: Stack) -> None:
    with Step("Prometheus' own rule is over"):
        await until("HeadraceBacklog is over", lambda: not rule_fires(stack, "tiny-shapes"), RULE_DEADLINE_S)


async def test_ports_are_open_to_this_machine_alone(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for container in containers(stack)
        for bindings in stack.inspect(container)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert len(published) >= 4
    assert set(published) == {"127.0.0.1"}


async def test_no_process_is_root(stack: Stack, client: Client) -> None:
    await a_picture_is_drawn(client)
    assert stack.workers()
    seen = 0
    for container in containers(stack):
        name = stack.inspect(container)["Name"]
        for line in stack.docker("top", container, "-eo", "pid,uid,comm").splitlines()[1:]:
            _, uid, command = line.split(maxsplit=2)
            seen += 1
            # The Engine's own init waits for the scaler, which has given up root.
            assert uid != "0" or command in ("docker-init", "tini"), f"{name}: {command} is root"
    assert seen >= len(containers(stack))


async def test_no_container_may_become_more_than_it_is(stack: Stack) -> None:
    for container in containers(stack):
        inspected = stack.inspect(container)
        host = inspected["HostConfig"]
        assert host["ReadonlyRootfs"], inspected["Name"]
        assert "ALL" in host["CapDrop"], inspected["Name"]
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), inspected["Name"]
        assert not host["Privileged"]


async def test_the_engine_s_socket_is_the_scaler_s_alone(stack: Stack) -> None:
    holders = {
        stack.inspect(container)["Name"]
        for container in containers(stack)
        if any(mount["Destination"].endswith("docker.sock") for mount in stack.inspect(container)["Mounts"])
    }
    assert holders == {stack.inspect(stack.container("scaler"))["Name"]}


async def test_no_secret_is_in_an_image_an_environment_or_a_log(stack: Stack, engine: Docker, tmp_path: Path) -> None:
    stack.compose("cp", "setup:/credentials", str(tmp_path))
    files = [path for path in (tmp_path / "credentials").rglob("*") if path.is_file()]
    seeds = {seed for path in files for seed in re.findall(rb"\bS[A-Z2-7]{57}\b", path.read_bytes())}
    passwords = {path.read_bytes().strip() for path in files if path.name in ("root-password", "password", ".routes")}
    passwords |= {
        found
        for path in files
        for found in re.findall(rb'^secret_access_key = "(.+)"$', path.read_bytes(), re.MULTILINE)
    }
    secrets = {secret.decode() for secret in seeds | passwords}
    assert len(seeds) >= 5
    assert len(passwords) >= 6
    said = {f"inspect {container}": json.dumps(stack.inspect(container)) for container in containers(stack)}
    said["logs"] = stack.compose("logs", "--no-color")
    for worker in stack.workers():
        said[f"log of worker {worker}"] = stack.docker("logs", worker)
    for image in {stack.inspect(container)["Image"] for container in containers(stack)}:
        said[f"image {image}"] = engine("history", "--no-trunc", image) + engine("image", "inspect", image)
    assert {where for where, text in said.items() for secret in secrets if secret in text} == set()
    for where, text in said.items():
        if where.startswith("image"):
            assert not re.search(r"(PASSWORD|SECRET|TOKEN)[A-Z_]*=[^\s\"]", text), where


def containers(stack: Stack) -> list[str]:
    """Ids of the project's containers that run, workers included."""
    return stack.docker(
        "ps", "--quiet", "--no-trunc", "--filter", f"label=com.docker.compose.project={stack.project}"
    ).split()


async def test_nobody_asked_the_broker_for_what_its_role_may_not_do(stack: Stack) -> None:
    """After all that the tests before did: a right that lacks may show in a crash alone, as a job that never ends."""
    said = stack.compose("logs", "--no-color", "nats").splitlines()
    assert any("Server is ready" in line for line in said)
    # A tenant's own questions may be refused, and clients know what that means.
    assert [line for line in said if "Violation" in line and "TENANT_" not in line] == []


async def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = {service: stack.container(service) for service in ("nats", "s3", "scaler", "prometheus")}
    with Step("a second up"):
        stack.up()
    assert {service: stack.container(service) for service in before} == before


HUB_MODEL = """
name = "absent"
task = "text-generation"
engine = "transformers"
weights = "hub:nobody/absent"
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-e", "MIN_FREE_GIB=999999", "setup"), r"the disk of volume \w+ has \d+ GiB free, and 999999 .*: make room"),
        (
            ("-e", "HEADRACE_CONFIG=", "-e", "NATS_URL=nats://nats:4222", "headrace", "status"),
            r"the broker at nats://nats:4222 refuses these credentials .*Authorization Violation.*: use those",
        ),
        (
            ("-e", "AWS_SECRET_ACCESS_KEY=wrong", "worker-tiny-shapes", "worker", "--model", "tiny-shapes"),
            r"the S3 server at http://s3:9000 refuses the key 'headrace-worker' .*: check",
        ),
        (
            ("-v", "{folder}:/models.d:ro", "worker-smollm2-135m", "models", "prepare", "/models.d/absent.toml"),
            r"the weights of nobody/absent are not in /models/weights: run",
        ),
    ],
    ids=["no room", "no keys", "a wrong key for files", "weights that were not pulled"],
)
def test_what_is_wrong_is_one_sentence(stack: Stack, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "absent.toml").write_text(HUB_MODEL)
    # Pytest keeps its folders to itself, and the container is another user.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    command = [word.format(folder=tmp_path) for word in words]
    with pytest.raises(CommandFailed) as failed:
        stack.compose("run", "--rm", "--no-deps", *command)
    sentences = re.findall(r"(?m)^error: .*", str(failed.value).replace("Error: ", "error: "))
    assert len(sentences) == 1, failed.value
    assert re.search(said, sentences[0])


async def test_a_backup_brings_back_results_files_and_what_waits(stack: Stack, client: Client) -> None:
    model = "tiny-shapes"
    done = await client.submit(model, prompt="a blue ring on a white background", seed=5)
    picture = await (await succeeded(done)).artifacts[0].read()
    await scale(stack, model, "max=0", "idle_timeout_s=1", "scale_down_delay_s=1")
    waiting = await client.submit(model, prompt="a green cross on a black background", seed=6)
    with Step("a backup"):
        await asyncio.to_thread(stack.compose, "stop")
        archive = await asyncio.to_thread(stack.compose_bytes, "run", "--rm", "-T", "setup", "backup")
    say(f"a backup of {len(archive) / 1e6:.0f} MB")
    with pytest.raises(CommandFailed, match="there is a stack, which would be lost"):
        restore(stack, archive)
    stack.down()
    with pytest.raises(CommandFailed, match="no backup of a stack"):
        restore(stack, b"an archive of something else")
    with Step("restored"):
        restore(stack, archive)
        await asyncio.to_thread(stack.up)
    # With the key from before.
    async with Client(client.settings) as reader:
        result = (await reader.result(model, done.id, RECOVERY_DEADLINE_S)).raise_for_status()
        assert await result.artifacts[0].read() == picture
        await scale(stack, model, "max=1")
        with Step("a job that waited in the backup"):
            await succeeded(reader.handle(model, waiting.id))


def restore(stack: Stack, archive: bytes) -> None:
    """Into volumes that are not there yet."""
    stack.compose("run", "--rm", "-T", "setup", "restore", given=archive)


def test_down_leaves_nothing(stack: Stack) -> None:
    assert stack.leftovers()
    stack.down()
    assert stack.leftovers() == []
