"""The documentation says what the code does: links, commands, names, and the tables that must be complete."""

import re
import shlex
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
import pytest
from example_runs import System

from headrace.cli import root
from headrace_contracts import settings as settings_module
from headrace_contracts.errors import ErrorCode
from headrace_contracts.event import AnyEvent
from headrace_contracts.job import JobBody, decode_job
from headrace_contracts.limits import Limits
from headrace_contracts.model import Batching, EngineKind, ModelSpec, Resources, Retry, Timeouts
from headrace_contracts.names import Bucket, Header, Lane, Stream
from headrace_contracts.result import Fault, Result, Status, Timings, Usage
from headrace_contracts.settings import S3Settings, Settings, parse_settings
from headrace_contracts.tasks.registry import Task, decode_input
from headrace_local.models import bundled_models
from headrace_storage.topology import StorageLimits, bucket_configs, stream_configs

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        README,
        ROOT / "CHANGELOG.md",
        *(page for page in DOCS.rglob("*.md") if "benchmarks" not in page.relative_to(DOCS).parts),
    ]
)

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE_COMMAND = re.compile(r"`(headrace [a-z][^`]*)`")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [body for kind, body in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def first_cells(text: str, heading: str) -> list[str]:
    """What stands in backticks in the first cells of the first table below a heading."""
    rows = text.split(f"{heading}\n", 1)[1].split("\n| --- ", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def shell_commands(page: Path, program: str) -> list[list[str]]:
    """Lines of shell blocks that run a program, as arguments."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith(f"{program} ")]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]

    lost = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]

    assert lost == []


def commands_named() -> set[tuple[str, ...]]:
    """`headrace` commands of all pages: their words up to the first that no command has."""
    found = set()
    for page in PAGES:
        lines = (" ".join(arguments) for arguments in shell_commands(page, "headrace"))
        for line in (*lines, *_INLINE_COMMAND.findall(page.read_text(encoding="utf-8"))):
            found.add(tuple(_command_words(line.split()[1:])))
    return found


def _command_words(words: list[str]) -> list[str]:
    """The words that name a command: one, or two below `models`."""
    known = 2 if words[0] == "models" and len(words) > 1 and words[1].isalpha() else 1
    return words[:known]


def test_the_pages_name_commands() -> None:
    assert {("up",), ("run",), ("models", "add"), ("models", "pull")} <= commands_named()


@pytest.mark.parametrize("command", sorted(commands_named()), ids=" ".join)
def test_every_command_named_exists(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *command, "--help"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert f"Usage: headrace {' '.join(command)}" in done.stdout


def test_every_command_there_is_has_been_named() -> None:
    commands = set(root.list_commands(None))  # type: ignore[arg-type]

    assert commands == {command[0] for command in commands_named()}


@pytest.mark.parametrize(
    ("page", "heading", "names"),
    [
        ("docs/contract.md", "### Error codes", set(ErrorCode)),
        ("docs/contract.md", "## Follow", {kind.__struct_config__.tag for kind in AnyEvent.__args__}),
        ("docs/contract.md", "### The body", set(JobBody.__struct_fields__)),
        ("docs/contract.md", "### Headers", set(Header)),
        ("docs/contract.md", "### Inputs and outputs", set(Task)),
        ("docs/contract.md", "### The result", set(Result.__struct_fields__)),
        ("docs/architecture.md", "## Events", {kind.__struct_config__.tag for kind in AnyEvent.__args__}),
        ("docs/models.md", "## Engines", set(EngineKind)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_has_each_name_and_no_other(page: str, heading: str, names: set[str]) -> None:
    assert set(first_cells(text_of(page), heading)) == {str(name) for name in names}


def test_every_field_of_an_event_is_in_both_tables() -> None:
    for page, heading in (("docs/contract.md", "## Follow"), ("docs/architecture.md", "## Events")):
        table = text_of(page).split(f"{heading}\n", 1)[1]
        for kind in AnyEvent.__args__:
            tag = kind.__struct_config__.tag
            row = next(line for line in table.splitlines() if line.startswith(f"| `{tag}`"))
            own = set(kind.__struct_fields__) - {"job_id", "at", "attempt"}
            assert own <= set(re.findall(r"`(\w+)`", row)), f"{page}: {tag}"


def test_every_key_of_a_model_file_is_explained_with_its_default() -> None:
    rows = {}
    for line in text_of("docs/models.md").split("## The file\n", 1)[1].splitlines():
        if found := re.match(r"\| \**`\[?(\w+)\]?`\** \| (?:`(.*?)`|required)? ?\|", line):
            rows[found[1]] = found[2]

    expected: dict[str, object] = {}
    for kind in (ModelSpec, Limits, Timeouts, Retry, Batching, Resources):
        for field in msgspec.structs.fields(kind):
            plain = isinstance(field.default, str | int | float | bool)
            expected[field.name] = field.default if plain else None
    missing = expected.keys() - rows.keys()
    assert missing == set()
    for name, default in expected.items():
        if default is not None:
            assert tomllib.loads(f"value = {rows[name]}")["value"] == default, name


def test_every_stream_subject_and_bucket_is_in_the_tables_of_names() -> None:
    text = text_of("docs/architecture.md")
    table = text.split("## Names on the broker\n", 1)[1]
    for config in stream_configs(StorageLimits()):
        row = next(line for line in table.splitlines() if f"`{config.name}`" in line and line.startswith("| `"))
        prefix, *stars = config.subjects[0].split(".")
        subject = re.findall(r"`([^`]+)`", row)[0]
        assert subject.startswith(f"{prefix}.<"), config.name
        assert len(subject.split(".")) == 1 + len(stars), config.name
        assert str(config.storage.value) in row, config.name
    for bucket in bucket_configs(StorageLimits()):
        row = next(line for line in table.splitlines() if line.startswith(f"| `{bucket.bucket}`"))
        assert (bucket.storage.value if bucket.storage else "file") in row, bucket.bucket
    assert {str(name) for name in (*Stream, *Bucket)} <= set(re.findall(r"`([A-Z]+)`", table))


@pytest.mark.parametrize("kind", [Status, Fault, Lane, Timings, Usage], ids=lambda kind: kind.__name__)
def test_every_word_of_a_result_is_in_the_contract(kind: type) -> None:
    words = set(kind.__struct_fields__) if issubclass(kind, msgspec.Struct) else {str(word) for word in kind}

    assert words <= set(re.findall(r"`([a-z_]+)`", text_of("docs/contract.md")))


def test_the_nats_commands_publish_jobs_that_their_models_accept() -> None:
    specs = {spec.name: spec for spec in bundled_models()}
    jobs = [arguments for page in PAGES for arguments in shell_commands(page, "nats") if arguments[1] == "req"]
    assert jobs
    for _, _, subject, body, *_ in jobs:
        job = decode_job(subject, None, body.encode(), 1, datetime.fromtimestamp(0, UTC))
        spec = specs[job.model]
        decode_input(spec.task, job.body.input, job.encoding, spec.limits)


@pytest.mark.parametrize("page", [README, DOCS / "models.md"], ids=named)
def test_model_files_shown_are_model_files(page: Path) -> None:
    files = blocks(page, "toml")

    assert files
    for body in files:
        msgspec.convert(tomllib.loads(body), ModelSpec)


def test_the_settings_file_shown_has_every_setting_and_its_default() -> None:
    [body] = blocks(DOCS / "settings.md", "toml")

    read = parse_settings(body, "settings.md", {}, {})

    assert msgspec.structs.replace(read, s3=None) == Settings()
    assert read.s3 is not None
    given = tomllib.loads(body)
    assert set(given) == set(Settings.__struct_fields__)
    assert set(given["s3"]) == set(S3Settings.__struct_fields__)
    defaults = {field.name: field.default for field in msgspec.structs.fields(S3Settings)}
    assert (read.s3.bucket, read.s3.region) == (defaults["bucket"], defaults["region"])


def test_every_variable_that_is_read_is_explained() -> None:
    explained = set(re.findall(r"`([A-Z0-9_]+)`", text_of("docs/settings.md").replace("`$", "`")))

    assert set(settings_module._VARIABLES) <= explained
    assert {"HEADRACE_CONFIG", "NATS_CONTEXT"} <= explained


@pytest.mark.models
@pytest.mark.parametrize("arguments", shell_commands(README, "headrace")[1:], ids=lambda a: " ".join(a[1:3]))
async def test_the_commands_of_the_readme_run(bundled: System, arguments: list[str]) -> None:
    compose = bundled.folder / "compose"
    if not compose.exists():
        compose.symlink_to(ROOT / "compose")

    ran = await bundled.run(sys.executable, "-m", "headrace.cli", *arguments[1:])

    assert ran.status == 0, ran.err
    assert ran.out


@pytest.mark.models
@pytest.mark.parametrize("code", blocks(README, "python"), ids=["sdk", "nats-py"])
async def test_the_python_of_the_readme_runs(bundled: System, code: str) -> None:
    ran = await bundled.run(sys.executable, "-c", code.replace("nats://127.0.0.1:4222", bundled.url))

    assert ran.status == 0, ran.err
    assert "succeeded" in ran.out


@pytest.mark.models
async def test_the_javascript_of_the_contract_runs(bundled: System) -> None:
    node = ROOT / "examples" / "node"
    if not (node / "node_modules").is_dir():
        pytest.skip("NOT TESTED: the Node client's packages are not installed (npm ci in examples/node)")
    submit, wait = blocks(DOCS / "contract.md", "js")
    for code, said in ((submit, "stored"), (wait, "succeeded"), (submit, "already there")):
        # Modules find their packages by their own place.
        script = node / f".from-the-docs-{bundled.folder.name}.mjs"
        script.write_text(code.replace("nats://127.0.0.1:4222", bundled.url))
        try:
            ran = await bundled.run("node", script)
        finally:
            script.unlink()
        assert ran.status == 0, ran.err
        assert said in ran.out
