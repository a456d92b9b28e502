"""The compose files as Compose reads them: what a stack must have whichever overlays are chosen."""

import itertools
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from promtool import needs_promtool, promtool

COMPOSE = Path(__file__).parents[2] / "compose"
OVERLAYS = ("gpu", "cluster", "seaweedfs", "fixed", "tracing")
COMBINATIONS = [
    chosen for count in range(len(OVERLAYS) + 1) for chosen in itertools.combinations(OVERLAYS, count)
]  # fmt: skip
# Each alone, and all at once: what is said of a service is said in one file.
SINGLE = [(), *((overlay,) for overlay in OVERLAYS), OVERLAYS]
ONCE = {"setup", "topology", "headrace", "pull"}
TEMPLATES = {"worker-tiny-shapes", "worker-whisper-tiny-en", "worker-smollm2-135m"}
ROOT_KEY = {"root-user", "root-password"}
_NAME, _VALUE = r"(password|secret|token|seed|access_key)\w*[\"']?", r"[\"']?(?!/|\$)[\w+/-]{8,}"
SECRET = re.compile(rf"{_NAME}[ ]*[:=][ ]*{_VALUE}", re.IGNORECASE)


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@cache
def services(overlays: tuple[str, ...], *profiles: str) -> dict[str, dict[str, Any]]:
    files = [word for name in ("docker-compose", *overlays) for word in ("-f", str(COMPOSE / f"{name}.yml"))]
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith(("_PORT", "_IMAGE")) and not name.startswith("OTEL_")
    }
    done = subprocess.run(
        [program("docker-compose"), "--env-file", "/dev/null", *files, *chosen, "config", "--format", "json"],
        env=environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return read


def lasting(overlays: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The services that run on."""
    ending = ONCE if "fixed" in overlays else ONCE | TEMPLATES
    return {name: service for name, service in services(overlays).items() if name not in ending}


@pytest.mark.parametrize("overlays", COMBINATIONS, ids="+".join)
def test_compose_reads_every_combination(overlays: tuple[str, ...]) -> None:
    found = services(overlays)
    assert ("seaweedfs" in found["s3"]["image"]) == ("seaweedfs" in overlays)
    assert ("scaler" in found) != ("fixed" in overlays)
    assert ("nats-3" in found["topology"]["depends_on"]) == ("cluster" in overlays)


@pytest.mark.parametrize("overlays", SINGLE, ids="+".join)
def test_ports_are_of_the_loopback_alone(overlays: tuple[str, ...]) -> None:
    ports = [port for service in services(overlays, "*").values() for port in service.get("ports", [])]
    assert len(ports) >= 5
    assert {port.get("host_ip") for port in ports} == {"127.0.0.1"}


@pytest.mark.parametrize("overlays", SINGLE, ids="+".join)
def test_every_container_is_confined(overlays: tuple[str, ...]) -> None:
    for name, service in services(overlays, "*").items():
        assert not service.get("privileged"), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert int(service["mem_limit"]) > 0, name
        assert float(service["cpus"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert service["logging"]["options"]["max-size"], name
        root = service.get("user") == "0:0"
        assert root == (name in ("setup", "scaler")), f"{name} runs as {service.get('user')}"
        socket = any("docker.sock" in volume.get("target", "") for volume in service.get("volumes", []))
        assert socket == (name == "scaler"), name


@pytest.mark.parametrize("overlays", SINGLE, ids="+".join)
def test_servers_are_watched_restarted_and_given_time_to_end(overlays: tuple[str, ...]) -> None:
    found = lasting(overlays)
    assert len(found) >= 5
    for name, service in found.items():
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name
        assert service["stop_grace_period"], name


@pytest.mark.parametrize("overlays", SINGLE, ids="+".join)
def test_images_are_pinned(overlays: tuple[str, ...]) -> None:
    for name, service in services(overlays, "*").items():
        _, _, tag = service["image"].rpartition(":")
        assert re.search(r"\d+\.\d+|\d{4}-\d\d-\d\d", tag), f"{name}: {service['image']}"


def test_images_and_ports_are_variables() -> None:
    for path in COMPOSE.glob("*.yml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip().startswith("image:"):
                assert re.search(r"image: \$\{[A-Z0-9_]+_IMAGE:-", line), f"{path.name}: {line}"
            if "127.0.0.1:$" in line:
                assert re.search(r"127\.0\.0\.1:\$\{[A-Z0-9_]+_PORT:-\d+\}:\d+", line), f"{path.name}: {line}"


def test_brokers_read_what_a_new_setup_wrote() -> None:
    for overlays, count in (((), 1), (("cluster",), 3)):
        brokers = [service for name, service in services(overlays).items() if name.startswith("nats")]
        assert [broker["depends_on"]["setup"].get("restart") for broker in brokers] == [True] * count


def test_only_the_gpu_overlay_asks_for_gpus() -> None:
    for overlays in SINGLE:
        asking = {name for name, service in services(overlays, "*").items() if _gpus(service)}
        assert asking - {"scaler"} == (TEMPLATES if "gpu" in overlays else set())


def _gpus(service: dict[str, Any]) -> bool:
    return bool(service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices"))


def test_templates_say_which_model_they_are_of_and_check_or_serve_it() -> None:
    for overlays, verb in (((), ["models", "prepare"]), (("fixed",), ["worker", "--model"])):
        for name in TEMPLATES:
            service = services(overlays)[name]
            model = service["labels"]["headrace.model"]
            assert name == f"worker-{model}"
            assert service["command"][:2] == verb
            assert Path(service["command"][2]).stem == model
            assert not service.get("entrypoint"), "a launcher's command goes to the image's own entrypoint"


@pytest.mark.parametrize("overlays", SINGLE, ids="+".join)
def test_a_service_has_its_own_credentials_and_no_others(overlays: tuple[str, ...]) -> None:
    allowed = dict.fromkeys(("nats", "nats-2", "nats-3"), "nats-credentials") | {"s3": "s3-credentials"}
    allowed |= {"scaler": "scaler-credentials", "grafana": "grafana-credentials"}
    allowed |= dict.fromkeys(("topology", "headrace"), "admin-credentials")
    allowed |= dict.fromkeys(TEMPLATES, "worker-credentials")
    # Who makes users has the S3 server's root key, and ends before any worker begins.
    further = {"topology": {"s3-credentials"}}
    for name, service in services(overlays, "*").items():
        mounts = {volume["source"]: volume for volume in service.get("volumes", []) if volume["type"] == "volume"}
        secret = {source for source in mounts if source.endswith("-credentials")}
        if name == "setup":
            continue
        assert secret == ({allowed[name]} if name in allowed else set()) | further.get(name, set()), name
        assert all(mounts[source]["read_only"] for source in secret), name


def test_users_of_the_s3_server_are_made_in_the_way_it_has() -> None:
    for overlays, kind, files in (((), "minio", set()), (("seaweedfs",), "seaweedfs", {"users.json"})):
        server, topology = (services(overlays)[name] for name in ("s3", "topology"))
        assert topology["environment"]["S3_SERVER"] == kind
        [volume] = [volume for volume in server["volumes"] if volume["source"] == "s3-credentials"]
        assert {Path(word).name for word in server["command"] if volume["target"] in word} == files
        # Nothing but MinIO looks at these.
        assert {Path(value).name for value in server["environment"].values() if volume["target"] in value} == ROOT_KEY
        # It reads a file when it starts; and is told of users while it runs.
        assert bool(server["depends_on"]["setup"].get("restart")) == (kind == "seaweedfs")


def test_spans_go_where_somebody_wants_them_and_nowhere_else() -> None:
    for overlays, endpoint in (((), ""), (("tracing",), "http://tracing:4318")):
        environments = {name: service.get("environment", {}) for name, service in services(overlays, "*").items()}
        asked = {name for name, environment in environments.items() if "OTEL_EXPORTER_OTLP_ENDPOINT" in environment}
        assert asked == TEMPLATES | {"headrace"}
        for environment in map(environments.__getitem__, asked):
            assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
            # Nothing at all, where nothing was set: OpenTelemetry takes an empty one for a mistake.
            assert environment["OTEL_TRACES_SAMPLER"] is None


def test_no_secret_is_in_a_file() -> None:
    files = [
        path
        for pattern in ("*.yml", "images/**/*", "prometheus/*.yml")
        for path in COMPOSE.glob(pattern)
        if path.is_file()
    ]
    assert len(files) > 8
    for path in files:
        found = SECRET.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found and found[0]}"


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    path = COMPOSE / "images" / "Dockerfile"
    done = subprocess.run([program("hadolint"), path], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_needs_no_buildkit() -> None:
    text = (COMPOSE / "images" / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"^# *syntax=|--mount=|<<-?\w|COPY --(chmod|link)", text, re.MULTILINE)


@needs_promtool
@pytest.mark.parametrize("name", ["compose.yml", "fixed.yml"])
def test_prometheus_takes_its_configuration(name: str) -> None:
    status, said = promtool("check", "config", COMPOSE / "prometheus" / name)
    assert status == 0, said
