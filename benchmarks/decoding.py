"""What a process of its own costs a recording: `python -m benchmarks.decoding`.

The same clip is decoded in this process and by the worker's `InputDecoder`, by turns: both see the same machine.
"""

import asyncio
import os
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import click

from headrace_local.models import find_model
from headrace_workers.decoding.decoder import InputDecoder, bounds_of
from headrace_workers.decoding.frames import Decoded
from headrace_workers.decoding.recording import decode_recording

CLIP = Path(__file__).parents[1] / "compose" / "headrace_local" / "data" / "speech" / "amiable-3s.wav"
WARM_UP = 20


@click.command()
@click.option("--rounds", default=500, show_default=True, help="Recordings on each side.")
def main(rounds: int) -> None:
    """Print the medians of both, and of the difference."""
    with tempfile.TemporaryDirectory() as folder:
        direct_s, confined_s = asyncio.run(_measure(Path(folder), WARM_UP + rounds))
    extra_s = [c - d for d, c in zip(direct_s, confined_s, strict=True)][WARM_UP:]
    rows = (
        ("in this process", direct_s[WARM_UP:]),
        ("in a child of its own", confined_s[WARM_UP:]),
        ("extra", extra_s),
    )
    for name, seconds in rows:
        p95 = statistics.quantiles(seconds, n=20)[-1]
        print(
            f"{name:<22} median {statistics.median(seconds) * 1e3:6.2f} ms   p95 {p95 * 1e3:6.2f} ms   n {len(seconds)}"
        )


async def _measure(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round: here, and in a child."""
    spec = find_model("whisper-tiny-en")
    content = CLIP.read_bytes()
    direct_s, confined_s = [], []
    async with InputDecoder() as decoder:
        await decoder.warm_up()
        for _ in range(rounds):
            path = folder / "audio"
            path.write_bytes(content)
            began = perf_counter()
            source, target = os.open(path, os.O_RDONLY), os.open(folder / "direct", os.O_WRONLY | os.O_CREAT)
            assert isinstance(decode_recording(source, target, bounds_of(spec.limits)), Decoded)
            os.close(source)
            os.close(target)
            direct_s.append(perf_counter() - began)
            began = perf_counter()
            files = await decoder.decode_inputs(spec, {"audio": str(path)})
            confined_s.append(perf_counter() - began)
            await asyncio.to_thread(os.unlink, files["audio"])
    return direct_s, confined_s


if __name__ == "__main__":
    main()
