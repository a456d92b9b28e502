"""What every job of one model on one worker shares."""

import random
from dataclasses import dataclass
from pathlib import Path

from headrace_contracts.clock import Clock
from headrace_contracts.model import ModelSpec
from headrace_storage.blobs.port import BlobStore
from headrace_storage.connection import Connection
from headrace_telemetry.tracing import Tracing
from headrace_workers.company import Company
from headrace_workers.cost_book import CostBook
from headrace_workers.decoding.decoder import InputDecoder
from headrace_workers.engine_host import EngineHost
from headrace_workers.metrics import WorkerMetrics


@dataclass(frozen=True)
class Surroundings:
    """The worker's connections and its engine for one model."""

    connection: Connection
    blobs: BlobStore
    host: EngineHost
    book: CostBook
    company: Company
    clock: Clock
    rng: random.Random
    worker_id: str
    scratch: Path
    """Folder for the files of running jobs."""
    decoder: InputDecoder
    """Makes samples of the recordings that jobs bring."""
    lease_s: float
    """For how long the broker lends a job without a renewal: the consumers' `ack_wait`."""
    metrics: WorkerMetrics
    """What Prometheus reads."""
    tracing: Tracing | None = None
    """Makes spans, where somebody wants them."""

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return self.host.spec
