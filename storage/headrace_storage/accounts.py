"""The ACCOUNTS bucket: what each hour of each worker went to, by model. Kept for `ACCOUNTS_KEPT_S`."""

from datetime import datetime

import msgspec
import nats.js.errors

from headrace_contracts.cost import HourAccount
from headrace_contracts.names import Bucket, account_key
from headrace_storage.connection import Connection
from headrace_storage.publishing import publish
from headrace_storage.reading import bucket_values

# It is written again soon; a worker that ends while its broker is away waits no longer for its last word.
DEADLINE_S = 5.0


async def put_account(connection: Connection, account: HourAccount) -> None:
    """Write the account of an hour, in the place of what was told of it before.

    Raises:
        QueueFull: the bucket is at its limit.
        BrokerUnavailable: no receipt, or there is no such bucket.
    """
    key = account_key(account.model, account.worker, account.hour)
    await publish(connection, f"$KV.{Bucket.ACCOUNTS}.{key}", msgspec.json.encode(account), {}, deadline_s=DEADLINE_S)


async def list_accounts(connection: Connection, since: datetime) -> list[HourAccount]:
    """The hours that end after `since`, by model, worker and hour; none where there is no such bucket yet.

    Raises:
        BrokerForbidden: this role may not read them.
        BrokerUnavailable: no answer.
    """
    with connection.errors():
        try:
            await connection.js.stream_info(f"KV_{Bucket.ACCOUNTS}")
        except nats.js.errors.NotFoundError:
            return []
    first = f"{since:%Y%m%d%H}"
    entries = await bucket_values(connection, Bucket.ACCOUNTS)
    return [
        msgspec.json.decode(value, type=HourAccount)
        for key, value in sorted(entries.items())
        if key.rpartition(".")[2] >= first
    ]
