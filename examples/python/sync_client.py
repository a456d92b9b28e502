"""The SDK without asyncio: run a model, look at what it made, save its files.

    python sync_client.py tiny-shapes '{"prompt": "a red star on a blue background"}'

The files it made go into ./out.
"""

import json
import sys
from typing import Any

import headrace


def main(model: str, task_input: dict[str, Any]) -> int:
    try:
        result = headrace.run(model, **task_input)
    except headrace.JobFailed as failed:
        print(f"{failed.status}: {failed.message} [{failed.code}]")
        return 1
    except headrace.HeadraceError as error:  # no such model, a wrong field, no broker: the sentence says what to do
        print(error)
        return 2
    print(f"{result.id} {result.status} on {result.worker} in {result.timings.run_s:.2f} s: {result.output}")
    for path in headrace.save(result, "out"):
        print(f"saved {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
