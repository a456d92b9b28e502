"""`python -m headrace_workers`: the same as `headrace worker`, without the rest of the command line."""

import sys

from headrace_contracts.errors import HeadraceError
from headrace_workers.cli import worker


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; exit status. Leaves by `SystemExit` where the arguments are wrong."""
    try:
        worker.main(arguments, prog_name="python -m headrace_workers", standalone_mode=True)
    except HeadraceError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
