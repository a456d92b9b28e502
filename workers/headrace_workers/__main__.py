"""`python -m headrace_workers`: the same as `headrace worker`, without the rest of the command line."""

import sys

from headrace_contracts.errors import HeadraceError
from headrace_workers.cli import worker

if __name__ == "__main__":
    try:
        worker(prog_name="python -m headrace_workers")
    except HeadraceError as error:
        sys.exit(f"error: {error}")
