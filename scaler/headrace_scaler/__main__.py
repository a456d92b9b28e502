"""`python -m headrace_scaler`: the same as `headrace scaler`, without the rest of the command line."""

import sys

from headrace_contracts.errors import HeadraceError
from headrace_scaler.cli import scaler

if __name__ == "__main__":
    try:
        scaler(prog_name="python -m headrace_scaler")
    except HeadraceError as error:
        sys.exit(f"error: {error}")
