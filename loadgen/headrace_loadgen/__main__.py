"""`python -m headrace_loadgen`."""

from headrace_loadgen.cli import main

if __name__ == "__main__":
    main(prog_name="python -m headrace_loadgen")
