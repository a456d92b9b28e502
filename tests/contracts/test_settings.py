"""Settings from a file, a NATS context and the environment."""

import json
from pathlib import Path

import pytest

from headrace_contracts.errors import InvalidName, SettingsError
from headrace_contracts.settings import MetricsSettings, load_settings, parse_settings

FILE = """
tenant = "acme"
[nats]
url = "nats://from-file:4222"
user = "me"
[s3]
endpoint_url = "http://minio:9000"
access_key_id = "a"
secret_access_key = "b"
"""


def test_without_anything_the_local_broker_and_no_s3() -> None:
    settings = parse_settings("", "-", {}, {})
    assert settings.nats.url == "nats://127.0.0.1:4222"
    assert settings.s3 is None


def test_the_environment_wins_over_the_context_over_the_file() -> None:
    context = {"url": "nats://from-context:4222", "user": "context"}
    assert parse_settings(FILE, "f", {}, {}).nats.url == "nats://from-file:4222"
    assert parse_settings(FILE, "f", {}, context).nats.url == "nats://from-context:4222"
    settings = parse_settings(FILE, "f", {"NATS_URL": "nats://from-env:4222"}, context)
    assert (settings.nats.url, settings.nats.user, settings.tenant) == ("nats://from-env:4222", "context", "acme")


def test_aws_credentials_alone_do_not_mean_s3() -> None:
    assert parse_settings("", "-", {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}, {}).s3 is None


def test_an_endpoint_needs_credentials() -> None:
    with pytest.raises(SettingsError, match="access_key_id"):
        parse_settings("", "-", {"S3_ENDPOINT_URL": "http://minio:9000"}, {})


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("nats = 1", "must be a table"), ("[nats]\nurll = 'x'", "urll"), ("tenant = 5", "tenant"), ("x", "file")],
)
def test_a_wrong_file_is_named_with_its_key(text: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=wrong):
        parse_settings(text, "file", {}, {})


@pytest.mark.parametrize("url", ["minio:9000", "ftp://x", "http://", "http://host/path"])
def test_an_endpoint_that_is_no_url_is_refused(url: str) -> None:
    environment = {"S3_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(SettingsError, match="must look like"):
        parse_settings("", "-", environment, {})


def test_a_tenant_that_cannot_be_a_token_is_refused() -> None:
    with pytest.raises(InvalidName):
        parse_settings("", "-", {"HEADRACE_TENANT": "a.b"}, {})


def test_a_nats_context_is_read_as_the_nats_tools_write_it(tmp_path: Path) -> None:
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "prod.json").write_text(json.dumps({"url": "nats://prod:4222", "creds": "/x.creds", "description": ""}))
    settings = load_settings({"XDG_CONFIG_HOME": str(tmp_path), "NATS_CONTEXT": "prod"})
    assert (settings.nats.url, settings.nats.creds) == ("nats://prod:4222", "/x.creds")


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load_settings({"HEADRACE_CONFIG": str(tmp_path / "none.toml")})


def test_files_are_kept_for_as_long_as_the_file_says() -> None:
    settings = parse_settings("[reaper]\ninput_retention_s = 86400.0", "here", {}, {})
    assert (settings.reaper.input_retention_s, settings.reaper.orphan_grace_s) == (86_400.0, 3600.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sweep_every_s = 0.5", "`sweep_every_s` is 0.5 and must be at least 1"),
        ("orphan_grace_s = 0", "`orphan_grace_s` is 0 and must be at least 60"),
        ("input_retention_s = nan", "`input_retention_s` is nan and must be at least 3600"),
    ],
)
def test_a_time_that_would_remove_what_is_in_use_is_refused(line: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings(f"[reaper]\n{line}", "here", {}, {})


def test_the_monitoring_port_of_one_server_or_of_several() -> None:
    one = parse_settings("", "-", {"NATS_MONITOR_URL": "http://127.0.0.1:8222"}, {})
    assert one.nats.monitor_url == "http://127.0.0.1:8222"
    several = parse_settings('[nats]\nmonitor_url = "http://a:8222,https://b:8222"', "-", {}, {})
    assert several.nats.monitor_url == "http://a:8222,https://b:8222"


@pytest.mark.parametrize("url", ["localhost:8222", "nats://a:4222", "http://", "http://a:8222,b"])
def test_a_monitoring_port_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"`monitor_url` is .* and must look like http://host:8222"):
        parse_settings("", "-", {"NATS_MONITOR_URL": url}, {})


def test_a_port_of_the_environment_is_a_number() -> None:
    one = parse_settings("", "-", {"HEADRACE_METRICS_PORT": "-1", "HEADRACE_METRICS_HOST": "0.0.0.0"}, {})
    assert one.metrics == MetricsSettings(-1, "0.0.0.0")


@pytest.mark.parametrize("port", ["many", "65536", "-2", "1.5"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match="port"):
        parse_settings("", "-", {"HEADRACE_METRICS_PORT": port}, {})


def test_a_launcher_is_one_of_those_there_are() -> None:
    assert parse_settings("", "-", {"HEADRACE_LAUNCHER": "docker"}, {}).scaler.launcher == "docker"
    with pytest.raises(SettingsError, match="launcher"):
        parse_settings("", "-", {"HEADRACE_LAUNCHER": "slurm"}, {})
