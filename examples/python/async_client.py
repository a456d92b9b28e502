"""The SDK with asyncio: text while it is written, and many jobs at once.

    python async_client.py smollm2-135m "Name a colour." "What is the capital of France?"

The first answer is streamed, the others come when all are there.
"""

import asyncio
import sys

import headrace


async def main(model: str, first: str, others: list[str]) -> None:
    async with headrace.Client() as client:
        job = await client.submit(model, prompt=first)
        async for piece in job.stream():
            print(piece, end="", flush=True)
        print()

        jobs = await client.submit_many(model, [{"prompt": prompt} for prompt in others], lane="low")
        for result in await asyncio.gather(*(job.result(timeout_s=300) for job in jobs)):
            print(result.text if result.error is None else f"{result.status}: {result.error.message}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
