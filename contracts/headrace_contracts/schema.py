"""JSON Schema files of every message: `python -m headrace_contracts.schema [--check] FOLDER`.

The files are the contract for other languages' code generators; they are committed, and the check fails on drift.
"""

import sys
from pathlib import Path

import msgspec

from headrace_contracts.alert import Alert, ScalingDecision, WorkerColdStart
from headrace_contracts.cost import HourAccount
from headrace_contracts.event import AnyEvent
from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.job import JobBody
from headrace_contracts.log_line import LogLines
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Result
from headrace_contracts.tasks.registry import Task, input_type, output_type

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def messages() -> dict[str, object]:
    """File stem to type, of every message a client may meet."""
    named: dict[str, object] = {
        "job": JobBody,
        "result": Result,
        "event": AnyEvent,
        "log": LogLines,
        "model": ModelSpec,
        "worker": WorkerStatus,
        "alert": Alert,
        "decision": ScalingDecision,
        "cold_start": WorkerColdStart,
        "account": HourAccount,
    }
    for task in Task:
        named[f"{task}.input"] = input_type(task)
        named[f"{task}.output"] = output_type(task)
    return named


def schema_of(kind: object) -> dict[str, object]:
    """A self-contained JSON Schema document of one type."""
    return {"$schema": DIALECT, **_without_discriminators(msgspec.json.schema(kind))}


def render(kind: object) -> bytes:
    """The committed form: indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(schema_of(kind), order="deterministic"), indent=2) + b"\n"


def _without_discriminators(schema: dict[str, object]) -> dict[str, object]:
    """Drop OpenAPI's `discriminator`, which msgspec adds to unions and JSON Schema does not know."""

    def clean(node: object) -> object:
        if isinstance(node, dict):
            return {
                k: clean(v)
                for k, v in node.items()
                if not (k == "discriminator" and isinstance(v, dict) and "mapping" in v)
            }
        if isinstance(node, list):
            return [clean(item) for item in node]
        return node

    cleaned = clean(schema)
    assert isinstance(cleaned, dict)
    return cleaned


def main(arguments: list[str]) -> int:
    """Write the files, or with --check only compare; 1 if any differs."""
    check = "--check" in arguments
    folder = Path(next(a for a in arguments if not a.startswith("--")))
    wanted = {folder / f"{stem}.json": render(kind) for stem, kind in messages().items()}
    stale = [p for p, content in wanted.items() if not p.is_file() or p.read_bytes() != content]
    stale += [p for p in folder.glob("*.json") if p not in wanted]
    if check:
        for path in stale:
            print(f"{path} does not match the code: run `make schemas`", file=sys.stderr)
        return 1 if stale else 0
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for path, content in wanted.items():
        path.write_bytes(content)
    print(f"{len(wanted)} schemas in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
