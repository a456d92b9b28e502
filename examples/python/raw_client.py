"""A Headrace job with nats-py and nothing else: what any NATS client in any language does.

    python raw_client.py tiny-shapes '{"prompt": "a red star on a blue background"}'

Prints the events, the result, and the names of the files it saved.
"""

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path

import nats
from nats.aio.msg import Msg

TENANT = os.environ.get("HEADRACE_TENANT") or "default"


async def main(model: str, task_input: dict[str, object]) -> bool:
    nc = await nats.connect(os.environ.get("NATS_URL") or "nats://127.0.0.1:4222")
    js = nc.jetstream()

    # The receipt means: the job is on disk and will have exactly one result.
    receipt = await js.publish(f"jobs.{TENANT}.{model}.normal", json.dumps({"input": task_input}).encode())
    job_id = f"seq-{receipt.seq}"
    print(f"submitted: job {job_id}")

    async def show(message: Msg) -> None:
        event = json.loads(message.data)
        print(event["event"], *(f"{key}={event[key]}" for key in ("step", "total", "text") if key in event))

    # From streams, not from plain subscriptions: what happened before we asked is there too.
    await js.subscribe(f"events.{TENANT}.{model}.{job_id}.>", stream="EVENTS", ordered_consumer=True, cb=show)
    results = await js.subscribe(f"results.{TENANT}.{model}.{job_id}", stream="RESULTS", ordered_consumer=True)
    result = json.loads((await results.next_msg(timeout=300)).data)

    print(result["status"], result["output"] if result["error"] is None else result["error"]["message"])
    for artifact in result["artifacts"]:
        data = (await (await js.object_store("headrace")).get(artifact["$blob"])).data or b""
        print("saved", save(artifact, data))
    await nc.close()
    return result["status"] == "succeeded"


def save(artifact: dict[str, str], data: bytes) -> Path:
    if hashlib.sha256(data).hexdigest() != artifact["sha256"]:
        raise ValueError(f"{artifact['name']} has other bytes than promised")
    path = Path(Path(artifact["name"]).name)
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]))) else 1)
