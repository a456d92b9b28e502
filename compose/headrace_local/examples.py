"""What a user can type next: one example a model, for the command line and for any NATS client."""

import shlex
from typing import assert_never

from headrace_contracts.model import ModelSpec
from headrace_contracts.names import DEFAULT_TENANT, Lane, jobs_subject
from headrace_contracts.tasks.registry import Task


def cli_example(spec: ModelSpec) -> str:
    """A `headrace run` command for one model."""
    match spec.task:
        case Task.TEXT_TO_IMAGE:
            argument = "prompt=a red circle on a blue background"
        case Task.SPEECH_TO_TEXT:
            argument = "audio=@recording.wav"
        case Task.TEXT_GENERATION:
            argument = "prompt=What is the capital of France?"
        case Task.SYNTHETIC:
            argument = "echo=hello"
        case _:
            assert_never(spec.task)
    return f"headrace run {spec.name} {shlex.quote(argument)}"


def nats_examples(spec: ModelSpec) -> tuple[str, str]:
    """Two `nats` commands: watch all results, and publish a job for one model."""
    match spec.task:
        case Task.TEXT_TO_IMAGE:
            body = '{"input": {"prompt": "a red circle on a blue background"}}'
        case Task.SPEECH_TO_TEXT:
            body = '{"input": {"audio": {"$inline": "<base64 of a recording>"}}}'
        case Task.TEXT_GENERATION:
            body = '{"input": {"prompt": "What is the capital of France?"}}'
        case Task.SYNTHETIC:
            body = '{"input": {"echo": "hello"}}'
        case _:
            assert_never(spec.task)
    subject = jobs_subject(DEFAULT_TENANT, spec.name, Lane.NORMAL)
    return f"nats sub 'results.{DEFAULT_TENANT}.>'", f"nats req {subject} {shlex.quote(body)}"
