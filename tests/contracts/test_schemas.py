"""The committed JSON Schemas: they match the code, and they accept and refuse what the code does."""

import json
from pathlib import Path

import jsonschema
import pytest

from headrace_contracts.schema import main, messages, render

FOLDER = Path(__file__).parents[2] / "contracts" / "schemas"


def test_the_committed_files_match_the_code() -> None:
    assert main(["--check", str(FOLDER)]) == 0, "run `make schemas`"


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    main([str(tmp_path)])
    (tmp_path / "job.json").write_text("{}")
    assert main(["--check", str(tmp_path)]) == 1


@pytest.mark.parametrize("stem", messages())
def test_every_file_is_a_valid_schema(stem: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(render(messages()[stem])))


def test_the_schema_of_a_job_refuses_what_the_worker_refuses() -> None:
    validator = jsonschema.Draft202012Validator(json.loads((FOLDER / "text-to-image.input.json").read_text()))
    assert validator.is_valid({"prompt": "a red star"})
    assert not validator.is_valid({"prompt": "a red star", "steps": 0})
    assert not validator.is_valid({"steps": 5})
    assert not validator.is_valid({"prompt": "a", "promt": "b"})
