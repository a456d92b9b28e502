"""Starts a worker as `python -m headrace_workers` does, after breaking it as the environment says.

HEADRACE_TEST_BREAKS    names of functions in `breaks`, separated by commas
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import breaks

from headrace_workers.cli import worker

if __name__ == "__main__":
    for name in filter(None, os.environ.get("HEADRACE_TEST_BREAKS", "").split(",")):
        breaks.IN_WORKERS[name]()
    worker(prog_name="launcher")
