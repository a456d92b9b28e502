"""`import headrace` is nearly free, and brings nothing a submitter does not need."""

import json
import statistics
import subprocess
import sys
import time

MEASURED = 5
# Over the start of a bare interpreter. It is about a tenth of this; torch alone takes ten times as long.
MOST_S = 0.3


def start_s(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def modules_after(code: str) -> set[str]:
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
    )
    return {name.partition(".")[0] for name in json.loads(listing.stdout.splitlines()[-1])}


def test_importing_the_package_costs_next_to_nothing() -> None:
    bare, package = [], []
    for _ in range(MEASURED):  # in turn, so that a busy machine is busy for both
        bare.append(start_s("pass"))
        package.append(start_s("import headrace"))
    assert statistics.median(package) - statistics.median(bare) < MOST_S


def test_importing_the_package_loads_nothing_else() -> None:
    assert not modules_after("import headrace") & {"nats", "minio", "msgspec", "click", "rich", "torch", "asyncio"}


def test_a_client_loads_the_broker_and_no_model_library() -> None:
    loaded = modules_after("import headrace; headrace.Client")
    assert "nats" in loaded
    assert not loaded & {"minio", "click", "rich", "torch", "transformers", "diffusers", "headrace_workers"}


def test_the_command_line_loads_tables_only_to_draw_them() -> None:
    loaded = modules_after("from headrace.cli import root; root(['run', '--help'], standalone_mode=False)")
    assert not loaded & {"minio", "rich", "torch", "transformers", "diffusers"}


def test_every_public_name_is_there_and_no_other() -> None:
    import headrace

    for name in headrace.__all__:
        assert getattr(headrace, name) is not None
    assert set(headrace.__all__) <= set(dir(headrace))
    assert not hasattr(headrace, "nonsense")


def test_a_blocking_call_inside_a_loop_names_the_way_out() -> None:
    code = (
        "import asyncio, headrace\n"
        "async def main():\n"
        "    try:\n"
        "        headrace.run('draw', prompt='star')\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "asyncio.run(main())"
    )
    said = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert "async with headrace.Client()" in said.stdout
    assert said.stderr == ""
