"""Where the system finds its broker, its object store and its folders: one TOML file, overridden by the environment.

The variables are those other tools already use: the `nats` command line's (NATS_URL, NATS_CREDS, NATS_CONTEXT ...)
and the AWS ones (S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...). `load_settings` reads files; everything else is pure.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from headrace_contracts.errors import SettingsError
from headrace_contracts.names import BLOB_BUCKET, DEFAULT_TENANT, check_token


class NatsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach NATS. Paths are files of the NATS tools: creds, nkey seed, certificates (PEM)."""

    url: str = "nats://127.0.0.1:4222"
    """One URL, or several separated by commas."""
    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | None = None
    nkey: str | None = None
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    inbox_prefix: str = "_INBOX"
    js_api_prefix: str = "$JS.API"
    """Where JetStream is asked; another one where it is in another account than ours."""
    monitor_url: str | None = None
    """The server's monitoring port, as in `http://127.0.0.1:8222`; one of each server, separated by commas."""

    def __post_init__(self) -> None:
        for url in (self.monitor_url or "").split(","):
            parts = urlsplit(url)
            if url and (parts.scheme not in ("http", "https") or not parts.netloc):
                raise ValueError(f"`monitor_url` is {self.monitor_url!r} and must look like http://host:8222")


class S3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An S3 service, as in MinIO. Without one, blobs are kept in JetStream's object store."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    bucket: str = BLOB_BUCKET
    region: str = "us-east-1"

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise ValueError(f"`endpoint_url` is {self.endpoint_url!r} and must look like http://host:9000")


class ReaperSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long files are kept that nobody may need any more. Seconds."""

    sweep_every_s: float = 600.0
    """Between two looks at all files. One costs a listing of the whole store."""
    orphan_grace_s: float = 3600.0
    """Age of an artifact that no result names; must exceed the longest upload of one attempt's files."""
    input_retention_s: float = 7 * 86_400.0
    """From the last upload of an input file until it is removed."""

    def __post_init__(self) -> None:
        # An input may be named by a job that is submitted an hour after its upload, and then waits a day.
        for name, least in (("sweep_every_s", 1.0), ("orphan_grace_s", 60.0), ("input_retention_s", 3600.0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"`{name}` is {getattr(self, name):g} and must be at least {least:g}")


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a process serves its metrics to Prometheus, at `/metrics`."""

    port: int = 0
    """0: nowhere; -1: any port that is free. Workers that a scaler starts take one that is free."""
    host: str = "127.0.0.1"
    """Address that is listened on: `0.0.0.0` for every one of the machine. Whoever reaches it may read."""

    def __post_init__(self) -> None:
        if not -1 <= self.port < 65_536:
            raise ValueError(f"`port` is {self.port} and must be a port, 0 for none, or -1 for any that is free")


class ScalerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the scaler may put workers on its machine, and what they cost."""

    launcher: Literal["local", "docker"] = "local"
    """What a worker is: a process of this machine, or a container of its Docker Engine."""
    cpu_slots: int = 0
    """CPU cores for workers, each worker taking its model's `resources.threads`; 0: all cores of the machine."""
    gpus: bool = True
    """Put models whose device is a GPU onto the GPUs of this machine, as their memory allows."""
    zygote: bool = True
    """Keep a warm parent process, from which workers start at once. It costs memory while nothing runs."""
    cpu_price_per_s: float = 0.0
    """Money per second of a worker on CPU slots, in the operator's currency."""
    gpu_price_per_s: float = 0.0
    """Money per second of a worker on a GPU, or its share of one."""
    alert_backlog_jobs: int = 100
    """Jobs waiting at which the backlog alert fires; 0: never."""
    alert_oldest_age_s: float = 60.0
    """Age of the oldest waiting job at which its alert fires; 0: never."""
    alert_after_s: float = 5.0
    """How long a condition must hold before its alert fires, and be gone before it is resolved."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ValueError(f"`{name}` is {value:g} and must not be negative or endless")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a Headrace process reads at its start."""

    nats: NatsSettings = NatsSettings()
    s3: S3Settings | None = None
    reaper: ReaperSettings = ReaperSettings()
    scaler: ScalerSettings = ScalerSettings()
    metrics: MetricsSettings = MetricsSettings()
    tenant: str = DEFAULT_TENANT
    ingress: bool = False
    """The tenant is untrusted: jobs and cancels go through its ingress stream."""
    cache_dir: str = "~/.cache/headrace"
    """Weights of models, ready to load."""

    @property
    def cache_path(self) -> Path:
        """`cache_dir` with `~` expanded."""
        return Path(self.cache_dir).expanduser()


# Left: environment variable; right: where it lands in Settings. The later of two for one place wins.
_VARIABLES = {
    "NATS_URL": ("nats", "url"),
    "NATS_USER": ("nats", "user"),
    "NATS_PASSWORD": ("nats", "password"),
    "NATS_TOKEN": ("nats", "token"),
    "NATS_CREDS": ("nats", "creds"),
    "NATS_NKEY": ("nats", "nkey"),
    "NATS_CERT": ("nats", "cert"),
    "NATS_KEY": ("nats", "key"),
    "NATS_CA": ("nats", "ca"),
    "NATS_INBOX_PREFIX": ("nats", "inbox_prefix"),
    "NATS_JS_API_PREFIX": ("nats", "js_api_prefix"),
    "NATS_MONITOR_URL": ("nats", "monitor_url"),
    "S3_ENDPOINT_URL": ("s3", "endpoint_url"),
    "AWS_ACCESS_KEY_ID": ("s3", "access_key_id"),
    "AWS_SECRET_ACCESS_KEY": ("s3", "secret_access_key"),
    "AWS_REGION": ("s3", "region"),
    "S3_BUCKET": ("s3", "bucket"),
    "HEADRACE_METRICS_HOST": ("metrics", "host"),
    "HEADRACE_METRICS_PORT": ("metrics", "port"),
    "HEADRACE_LAUNCHER": ("scaler", "launcher"),
    "HEADRACE_TENANT": ("tenant",),
    "HEADRACE_CACHE_DIR": ("cache_dir",),
}

# Of what is no number, the check of the settings says so.
_NUMBERS = frozenset({"HEADRACE_METRICS_PORT"})
_INTEGER = re.compile(r"-?\d+")

_CONTEXT_KEYS = ("url", "user", "password", "token", "creds", "nkey", "cert", "key", "ca", "inbox_prefix")

_PATH_KEYS = ("creds", "nkey", "cert", "key", "ca")


def parse_settings(toml_text: str, source: str, environment: Mapping[str, str], context: Mapping[str, str]) -> Settings:
    """Settings from the text of a file, a NATS context and the environment; the last wins.

    Args:
        toml_text: content of the settings file; empty if there is none.
        source: the file's name, for errors.
        environment: variables, as in `os.environ`.
        context: a NATS context's keys and values; empty if none is chosen.

    Raises:
        SettingsError: names the file or variable, and what is wrong.
    """
    try:
        table = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{source}: {error}") from error
    nats = {
        **_beside(_section(table, "nats", source), source),
        **{key: context[key] for key in _CONTEXT_KEYS if context.get(key)},
    }
    sections: dict[str, object] = {**table, "nats": nats, "s3": _section(table, "s3", source)}
    sections |= {name: _section(table, name, source) for name in ("scaler", "metrics")}
    for variable, path in _VARIABLES.items():
        value = environment.get(variable)
        if value:
            target = sections if len(path) == 1 else sections[path[0]]
            assert isinstance(target, dict)
            target[path[-1]] = int(value) if variable in _NUMBERS and _INTEGER.fullmatch(value) else value
    s3 = sections["s3"]
    # AWS variables are set on many machines for other reasons: only an endpoint means that S3 is wanted.
    if not (isinstance(s3, dict) and "endpoint_url" in s3):
        del sections["s3"]
    try:
        settings = msgspec.convert(sections, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source} and environment: {error}") from error
    check_token("tenant", settings.tenant)
    return settings


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings of this process.

    The file is $HEADRACE_CONFIG, else ./headrace.toml, else $XDG_CONFIG_HOME/headrace/headrace.toml, if there.

    Raises:
        SettingsError: a file cannot be read, or a value is wrong.
    """
    env = os.environ if environment is None else environment
    path = _settings_path(env)
    text = "" if path is None else _read(path)
    return parse_settings(text, str(path or "settings"), env, _read_context(env))


def data_folder(environment: Mapping[str, str]) -> Path:
    """Where a user's Headrace keeps its data: $XDG_DATA_HOME/headrace, else ~/.local/share/headrace."""
    home = environment.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "headrace"


def _section(table: dict[str, object], name: str, source: str) -> dict[str, object]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise SettingsError(f"{source}: `{name}` must be a table, as in [{name}]")
    return dict(section)


def _beside(section: dict[str, object], source: str) -> dict[str, object]:
    """Relative paths of a settings file are taken from where it lies, so that a folder can be moved as a whole."""
    folder = Path(source).parent
    paths = {key: section[key] for key in _PATH_KEYS if isinstance(section.get(key), str)}
    return {**section, **{key: str(folder / Path(str(value)).expanduser()) for key, value in paths.items()}}


def _settings_path(env: Mapping[str, str]) -> Path | None:
    named = env.get("HEADRACE_CONFIG")
    if named:
        return Path(named)
    for path in (Path("headrace.toml"), _config_home(env) / "headrace" / "headrace.toml"):
        if path.is_file():
            return path
    return None


def _read_context(env: Mapping[str, str]) -> dict[str, str]:
    """The NATS context named by NATS_CONTEXT: $XDG_CONFIG_HOME/nats/context/<name>.json."""
    name = env.get("NATS_CONTEXT")
    if not name:
        return {}
    path = _config_home(env) / "nats" / "context" / f"{name}.json"
    try:
        context = msgspec.json.decode(_read(path), type=dict[str, object])
    except msgspec.DecodeError as error:
        raise SettingsError(f"NATS context {path}: {error}") from error
    return {key: value for key, value in context.items() if isinstance(value, str)}


def _config_home(env: Mapping[str, str]) -> Path:
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
