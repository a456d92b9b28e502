"""What workers cost: the price of a second, what one run of a job took, and the account of an hour.

Amounts have no currency: they are in whatever the operator's prices are in.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from headrace_contracts.heartbeat import Account
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Usage
from headrace_contracts.settings import ScalerSettings


class SlotKind(StrEnum):
    """What a worker runs on: what its place is measured in, and whose price it has."""

    CPU = "cpu"
    GPU = "gpu"


class Bill(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one run of a job took of a worker."""

    delivery: int
    """Which delivery it was, from 1."""
    engine_s: float
    """Its share of the time in which the engine was busy: with k jobs in the engine, a k-th of each moment."""
    gpu_s: float = 0.0
    """The same, where the engine has a GPU."""
    cost: float | None = None
    """Absent where no price is set."""


class TenantAccount(msgspec.Struct, frozen=True):
    """What one tenant's jobs took of a worker. A run counts as a whole in the hour in which it left the engine."""

    busy_s: float = 0.0
    runs: int = 0
    succeeded: int = 0


class HourAccount(msgspec.Struct, frozen=True):
    """What one hour of one worker went to, for one of its models: an entry of the ACCOUNTS bucket."""

    model: str
    worker: str
    hour: datetime
    """When the hour begins, in UTC."""
    slot: SlotKind
    price_per_s: float
    """Of this model on this worker; 0: no price is set."""
    account: Account
    succeeded: int
    """Runs that succeeded, of `account.jobs`."""
    tenants: dict[str, TenantAccount]
    at: datetime
    """Until when it tells."""
    ended: bool = False
    """The worker ended in order and this is its last word; without it, up to 10 s are missing once it is gone."""


def price_per_s(spec: ModelSpec, slot: SlotKind, prices: ScalerSettings, models: int) -> float:
    """Price of a second of a worker, for one of the models that it serves.

    Args:
        spec: the model; its own price comes first.
        slot: what the worker runs on.
        prices: the operator's, per second of a worker.
        models: how many models share the worker, and its price in equal parts.
    """
    of_slot = prices.gpu_price_per_s if slot is SlotKind.GPU else prices.cpu_price_per_s
    return spec.price_per_s or of_slot / models


def usage_with(usage: Usage, bills: Iterable[Bill]) -> Usage:
    """A result's usage, with what all known runs of the job took together."""
    bills = tuple(bills)
    costs = [bill.cost for bill in bills if bill.cost is not None]
    return msgspec.structs.replace(
        usage,
        engine_s=sum(bill.engine_s for bill in bills),
        gpu_s=sum(bill.gpu_s for bill in bills),
        cost=sum(costs) if costs else None,
    )
