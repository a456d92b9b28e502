"""What an intruder in a decoder can do: nothing, and each layer says no by itself."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest
import pytest_asyncio
from lives import lives, until_ended

from headrace_contracts.errors import InvalidInput, Retryable
from headrace_contracts.limits import Limits
from headrace_contracts.model import ModelSpec
from headrace_local.models import find_model
from headrace_workers.decoding.confinement import Layer
from headrace_workers.decoding.decoder import InputDecoder

INTRUDER = Path(__file__).with_name("intruder.py")
DONE = "it was done"
NOT_PERMITTED, NO_SUCH_FILE, TOO_MANY = "Operation not permitted", "No such file", "Too many open files"
KILLED = "ask the system for what no recording needs"
ALL = tuple(Layer)


def hearing(**limits: float) -> ModelSpec:
    return msgspec.structs.replace(find_model("whisper-tiny-en"), limits=Limits(**limits))


class Listener:
    """Counts the connections that are made to it."""

    def __init__(self) -> None:
        self.heard = 0

    async def __aenter__(self) -> "Listener":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += 1
        writer.close()


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    async with Listener() as listener:
        yield listener


async def attempt(folder: Path, deed: str, layers: tuple[Layer, ...], argument: object = "", **limits: float) -> str:
    """Let an intruder do a deed, confined by some layers; what became of it."""
    recording = folder / "recording"
    recording.write_bytes(b"RIFF")
    command = (sys.executable, str(INTRUDER), deed, ",".join(layers), str(argument))
    async with InputDecoder(command) as decoder:
        with pytest.raises(InvalidInput, match=r"^input\.audio") as refused:
            await decoder.decode_inputs(hearing(**limits), {"audio": str(recording)})
        # The next file finds the nursery as it was.
        assert decoder.nursery_pid is not None
        assert not psutil.Process(decoder.nursery_pid).children()
        return refused.value.problem


@pytest.mark.parametrize(
    ("layer", "answer"),
    [(Layer.ROOT, NO_SUCH_FILE), (Layer.USER, "Permission denied"), (Layer.LIMITS, TOO_MANY),
     (Layer.SECCOMP, NOT_PERMITTED)],
)  # fmt: skip
async def test_no_file_is_opened(tmp_path: Path, layer: Layer, answer: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    secret.chmod(0o600)
    assert await attempt(tmp_path, "read_a_file", (), secret) == DONE
    assert answer in await attempt(tmp_path, "read_a_file", (layer,), secret)
    assert await attempt(tmp_path, "read_a_file", ALL, secret) != DONE


@pytest.mark.parametrize("layer", [Layer.ROOT, Layer.USER, Layer.LIMITS, Layer.SECCOMP])
async def test_nothing_is_written_elsewhere(tmp_path: Path, layer: Layer) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert await attempt(tmp_path, "write_elsewhere", (layer,), elsewhere) != DONE
    assert await attempt(tmp_path, "write_elsewhere", ALL, elsewhere) != DONE
    assert not elsewhere.exists()
    assert await attempt(tmp_path, "write_elsewhere", (), elsewhere) == DONE
    assert elsewhere.exists()


@pytest.mark.parametrize(
    ("layer", "answer"),
    [(Layer.NAMESPACES, "Network is unreachable"), (Layer.LIMITS, TOO_MANY), (Layer.SECCOMP, KILLED)],
)
async def test_no_connection_is_made(tmp_path: Path, listener: Listener, layer: Layer, answer: str) -> None:
    assert answer in await attempt(tmp_path, "connect", (layer,), listener.port)
    assert KILLED in await attempt(tmp_path, "connect", (Layer.SECCOMP,), listener.port)
    assert await attempt(tmp_path, "connect", ALL, listener.port) != DONE
    assert await attempt(tmp_path, "send_a_packet", (layer,), listener.port) != DONE
    assert listener.heard == 0
    assert await attempt(tmp_path, "connect", (), listener.port) == DONE
    assert listener.heard == 1


@pytest.mark.parametrize(
    ("deed", "layers", "answer"),
    [
        ("start_a_program", (Layer.ROOT,), NO_SUCH_FILE),
        ("start_a_program", (Layer.SECCOMP,), KILLED),
        ("fork", (Layer.USER, Layer.LIMITS), "temporarily unavailable"),
        ("fork", (Layer.SECCOMP,), NOT_PERMITTED),
        ("signal_the_nursery", (Layer.USER,), NOT_PERMITTED),
        ("signal_the_nursery", (Layer.SECCOMP,), KILLED),
        ("trace_the_nursery", (Layer.USER,), NOT_PERMITTED),
        ("trace_the_nursery", (Layer.SECCOMP,), KILLED),
        ("mount", (Layer.USER,), NOT_PERMITTED),
        ("mount", (Layer.SECCOMP,), KILLED),
        ("become_root", (Layer.USER,), NOT_PERMITTED),
        ("become_root", (Layer.SECCOMP,), NOT_PERMITTED),
        ("leave_the_empty_folder", (Layer.USER, Layer.ROOT), "Permission denied"),
        ("run_made_up_code", (Layer.SECCOMP,), NOT_PERMITTED),
        ("fill_the_disk", (Layer.LIMITS,), "File too large"),
    ],
)
async def test_each_layer_alone_refuses(tmp_path: Path, deed: str, layers: tuple[Layer, ...], answer: str) -> None:
    limits = {"max_audio_s": 60.0}
    assert answer in await attempt(tmp_path, deed, layers, **limits)
    assert await attempt(tmp_path, deed, ALL, **limits) != DONE
    if deed not in ("start_a_program", "trace_the_nursery", "mount"):  # they succeed, and change or hang the test
        assert await attempt(tmp_path, deed, (), **limits) == DONE


async def test_a_worker_that_is_not_root_confines_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a user namespace, whose rights are taken away again."""
    user = "as a user"
    assert await attempt(tmp_path, "mount", (Layer.NAMESPACES,), user) == DONE
    assert await attempt(tmp_path, "mount", (Layer.NAMESPACES, Layer.USER), user) == NOT_PERMITTED
    assert await attempt(tmp_path, "leave_the_empty_folder", (Layer.NAMESPACES, Layer.ROOT), user) == DONE
    assert await attempt(tmp_path, "write_elsewhere", (Layer.NAMESPACES, Layer.ROOT), user) != DONE
    assert await attempt(tmp_path, "fork", ALL, user) != DONE
    assert "fewer barriers" not in capsys.readouterr().out, "this machine has all layers, for users too"


async def test_the_file_itself_cannot_be_changed(tmp_path: Path) -> None:
    assert await attempt(tmp_path, "write_to_the_input", ()) == "Bad file descriptor"


async def test_a_child_has_three_descriptors_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    descriptors, _, names = (await attempt(tmp_path, "look_around", (Layer.ROOT,))).partition(" open; ")
    assert descriptors == "3"
    assert "PATH" in names.split()
    assert not {"NATS_PASSWORD", "AWS_SECRET_ACCESS_KEY"} & set(names.split())


async def test_memory_is_limited(tmp_path: Path) -> None:
    assert await attempt(tmp_path, "take_memory", (Layer.LIMITS,), max_decode_bytes=2**30) == DONE
    refused = await attempt(tmp_path, "take_memory", ALL, max_decode_bytes=64 * 2**20)
    assert refused == "takes more than 64 MB to decode, which is this model's limit"


@pytest.mark.parametrize("deed", ["never_end", "never_end_in_silence"])
async def test_time_is_limited(tmp_path: Path, deed: str) -> None:
    refused = await attempt(tmp_path, deed, ALL, max_decode_s=0.2)
    assert refused == "takes more than 0.2 s to decode, which is this model's limit"


async def test_the_clock_of_the_processor_holds_where_nobody_watches(tmp_path: Path) -> None:
    """The nursery is stopped: its own deadline cannot end the child."""
    recording = tmp_path / "recording"
    recording.write_bytes(b"RIFF")
    async with InputDecoder((sys.executable, str(INTRUDER), "never_end", "limits", "")) as decoder:
        waiting = asyncio.create_task(decoder.decode_inputs(hearing(max_decode_s=0.5), {"audio": str(recording)}))
        nursery = await a_child_of(decoder)
        nursery.suspend()
        [child] = nursery.children()
        async with asyncio.timeout(30):
            while lives(child):
                await asyncio.sleep(0.02)
        nursery.resume()
        with pytest.raises(InvalidInput, match=r"takes more than 0\.5 s"):
            await waiting


@pytest.mark.parametrize(
    ("deed", "answer"),
    [
        ("crash", "makes its decoder crash (SIGSEGV)"),
        ("lie", "makes its decoder fail without a word"),
        ("talk_without_end", "makes its decoder fail without a word"),
        ("hang_up_and_live_on", "its decoder was killed by the system, mostly for want of memory"),
    ],
)
async def test_whatever_a_child_does_it_is_the_files_fault(tmp_path: Path, deed: str, answer: str) -> None:
    assert await attempt(tmp_path, deed, (Layer.LIMITS,)) == answer


async def test_a_nursery_that_dies_is_the_workers_fault_and_the_next_file_gets_a_new_one(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    recording.write_bytes(b"RIFF")
    async with InputDecoder((sys.executable, str(INTRUDER), "never_end_in_silence", "limits,user", "")) as decoder:
        waiting = asyncio.create_task(decoder.decode_inputs(hearing(), {"audio": str(recording)}))
        nursery = await a_child_of(decoder)
        [child] = nursery.children()
        nursery.kill()
        with pytest.raises(Retryable, match="the worker could not decode the input: its process ended"):
            await waiting
        await until_ended(child)
        with pytest.raises(InvalidInput, match="takes more than"):
            await decoder.decode_inputs(hearing(max_decode_s=0.1), {"audio": str(recording)})
        assert decoder.nursery_pid != nursery.pid


async def test_a_nursery_that_cannot_start_is_the_workers_fault(tmp_path: Path) -> None:
    async with InputDecoder((sys.executable, "-c", "raise SystemExit('no FFmpeg here')")) as decoder:
        with pytest.raises(Retryable, match="the worker could not decode the input: its process ended"):
            await decoder.warm_up()
    async with InputDecoder((str(tmp_path / "nothing"),)) as decoder:
        with pytest.raises(Retryable, match=r"did not start \(No such file or directory\)"):
            await decoder.warm_up()


@pytest.mark.parametrize(
    ("deed", "answer"),
    [
        ("allow_no_more_processes", r"no process for it \(Resource temporarily unavailable\)"),
        ("lose_a_layer", r"could not be confined \(\[Errno 1\] not allowed to change a limit\)"),
    ],
)
async def test_a_machine_without_processes_or_a_layer_is_no_files_fault(tmp_path: Path, deed: str, answer: str) -> None:
    recording = tmp_path / "recording"
    recording.write_bytes(b"RIFF")
    async with InputDecoder((sys.executable, str(INTRUDER), deed, ",".join(ALL), "")) as decoder:
        with pytest.raises(Retryable, match=answer) as refused:
            await decoder.decode_inputs(hearing(), {"audio": str(recording)})
        assert (refused.value.code, refused.value.fault) == ("internal", "worker")
    assert recording.exists(), "it was not read: the next attempt has it"


async def test_a_machine_without_a_layer_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A system call that is not there, as on a kernel without seccomp."""
    async with InputDecoder((sys.executable, str(INTRUDER), "lack_seccomp", ",".join(ALL), "")) as decoder:
        await decoder.warm_up()
    [line] = capsys.readouterr().out.strip().splitlines()
    assert "fewer barriers" in line
    assert "layers=['namespaces', 'root', 'user', 'limits']" in line
    assert "missing={'seccomp': 'prctl: " in line


async def test_who_no_longer_waits_leaves_no_child(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    recording.write_bytes(b"RIFF")
    async with InputDecoder((sys.executable, str(INTRUDER), "never_end_in_silence", ",".join(ALL), "")) as decoder:
        waiting = asyncio.create_task(decoder.decode_inputs(hearing(), {"audio": str(recording)}))
        nursery = await a_child_of(decoder)
        [child] = nursery.children()
        waiting.cancel()
        await asyncio.wait([waiting])
        await until_ended(child)
        assert nursery.is_running()


async def test_the_end_of_the_decoder_is_the_end_of_all_its_processes(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    recording.write_bytes(b"RIFF")
    async with InputDecoder((sys.executable, str(INTRUDER), "never_end_in_silence", ",".join(ALL), "")) as decoder:
        waiting = asyncio.create_task(decoder.decode_inputs(hearing(), {"audio": str(recording)}))
        nursery = await a_child_of(decoder)
        [child] = nursery.children()
    await until_ended(nursery)
    await until_ended(child)
    with pytest.raises(Retryable):
        await waiting


async def a_child_of(decoder: InputDecoder) -> psutil.Process:
    """Wait until the nursery has a child; the nursery."""
    async with asyncio.timeout(30):
        while decoder.nursery_pid is None or not psutil.Process(decoder.nursery_pid).children():
            await asyncio.sleep(0.01)
    return psutil.Process(decoder.nursery_pid)


def test_the_supervisor_imports_no_decoder() -> None:
    heavy = "{'av', 'numpy', 'torch', 'faster_whisper'}"
    program = f"import sys, headrace_workers.worker; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
