"""Traffic in which everything happens that the dashboard shows: `traffic.py MINUTES`, for a system that runs.

Beside the models that come with Headrace it adds three of the synthetic engine: `thumbnails` comes in bursts,
`moderate` fails in every way, `depth-map` cannot load. They are removed at the end.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator

import headrace
from headrace_contracts.model import EngineKind, ModelSpec, Retry
from headrace_contracts.scaling import Scaling
from headrace_contracts.tasks.registry import Task
from headrace_storage.registry import add_model, remove_model

_QUICK = Scaling(max_workers=2, idle_timeout_s=20.0, scale_down_delay_s=5.0)
MODELS = (
    ModelSpec("thumbnails", Task.SYNTHETIC, EngineKind.SYNTHETIC, scaling=_QUICK),
    ModelSpec("moderate", Task.SYNTHETIC, EngineKind.SYNTHETIC, scaling=_QUICK, retry=Retry(max_attempts=2)),
    ModelSpec(
        "depth-map",
        Task.SYNTHETIC,
        EngineKind.SYNTHETIC,
        scaling=_QUICK,
        options={"load_error": "depth-map.safetensors: no such file"},
    ),
)
_WAYS_TO_FAIL = ("error", "crash", "crash_once", "out_of_memory", "nan", "empty")
_FAILING = 0.08
_PROMPTS = ("a red star on a blue background", "a green circle on a white background", "a blue square")
_QUESTIONS = ("Why is the sky blue?", "What is a headrace?", "Name three rivers.")


class Traffic:
    """What clients send, each in a way of its own, until canceled."""

    def __init__(self, client: headrace.Client, rng: random.Random) -> None:
        self._client = client
        self._rng = rng

    async def run(self) -> None:
        """All of it."""
        streams = (self._pictures, self._chat, self._thumbnails, self._moderate, self._depth_maps)
        async with asyncio.TaskGroup() as tasks:
            for stream in streams:
                tasks.create_task(stream())

    async def _pictures(self) -> None:
        while True:
            await self._client.submit("tiny-shapes", prompt=self._rng.choice(_PROMPTS), seed=self._rng.getrandbits(16))
            await asyncio.sleep(self._rng.expovariate(1.0))

    async def _chat(self) -> None:
        """With pauses in which its workers end."""
        while True:
            for _ in range(self._rng.randint(3, 12)):
                question, max_tokens = self._rng.choice(_QUESTIONS), self._rng.randint(10, 60)
                await self._client.submit("smollm2-135m", prompt=question, max_tokens=max_tokens)
                await asyncio.sleep(self._rng.expovariate(0.5))
            await asyncio.sleep(90)

    async def _thumbnails(self) -> None:
        while True:
            count = self._rng.randint(20, 100)
            await asyncio.gather(
                *(self._client.submit("thumbnails", lane="low", steps=3, step_s=0.2) for _ in range(count))
            )
            await asyncio.sleep(self._rng.uniform(30, 75))

    async def _moderate(self) -> None:
        while True:
            behaviour = self._rng.choice(_WAYS_TO_FAIL) if self._rng.random() < _FAILING else "ok"
            step_s = self._rng.uniform(0.02, 0.4)
            await self._client.submit("moderate", lane="high", behaviour=behaviour, step_s=step_s)
            await asyncio.sleep(self._rng.expovariate(2.0))

    async def _depth_maps(self) -> None:
        """Near the end of a picture's quarter of an hour."""
        await asyncio.sleep(13 * 60)
        for _ in range(5):
            await self._client.submit("depth-map", echo="never")


async def main(minutes: float) -> None:
    """Until the time is over; what waits then is thrown away with its model."""
    async with headrace.Client() as client, _added(client):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60 * minutes):
                await Traffic(client, random.Random(7)).run()  # noqa: S311 - no secret


@contextlib.asynccontextmanager
async def _added(client: headrace.Client) -> AsyncIterator[None]:
    for model in MODELS:
        await add_model(client.connection, model)
    try:
        yield
    finally:
        for model in MODELS:
            await remove_model(client.connection, model.name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(main(float(sys.argv[1])))
