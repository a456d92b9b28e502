"""`python -m headrace_workers.weights SPEC_JSON_FILE --cache DIR`: `ensure` in a process of its own.

Its memory goes back to the system when it ends, however large the import was. Progress goes to stderr; the last line
on stdout is the folder (empty for a model without weights); exit code 1 and one sentence on stderr mean an error.
"""

import argparse
import os
import sys
from pathlib import Path

import msgspec

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import ModelSpec
from headrace_workers.weights.ready import ensure


def main(arguments: list[str] | None = None) -> int:
    """Run `ensure`; 0, or 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m headrace_workers.weights", description="Make a model's weights ready."
    )
    parser.add_argument("spec", type=Path, help="the model as JSON")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the weight cache")
    parser.add_argument(
        "--lock", type=Path, help="models.lock that pins hub models; default: what the cache last pulled"
    )
    options = parser.parse_args(arguments)
    # Everything this process needs is on this machine; the libraries would ask the hub all the same.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        spec = msgspec.json.decode(options.spec.read_bytes(), type=ModelSpec)
        folder = ensure(spec, options.cache, _report, lock_file=options.lock)
    except (WeightsError, OSError, msgspec.DecodeError) as error:
        _report(str(error))
        return 1
    sys.stdout.write(f"{folder or ''}\n")
    return 0


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
