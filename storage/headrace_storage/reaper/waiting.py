"""What is known of jobs that were never delivered: where they are, and when they have waited for too long. Pure.

A body is read once. What stays in memory is one small record a job, at most `limit` of them: beyond that, those with
the latest deadlines are forgotten, and read again before the first of them is due.
"""

import heapq
from collections.abc import Iterator, Mapping

import msgspec

LIMIT = 100_000
"""Records of about 200 bytes: 20 MB. Fewer cost more reading when very many jobs wait."""


class Waiting(msgspec.Struct, frozen=True, order=True, gc=False):
    """A job in the queue. Ordered by deadline."""

    deadline_s: float
    """Seconds since 1970, when it may be ended."""
    sequence: int
    consumer: str
    tenant: str
    model: str
    job_id: str


class WaitingJobs:
    """The jobs that wait, earliest deadline first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._heap: list[Waiting] = []
        self._next: dict[str, int] = {}
        self._forgotten: dict[str, tuple[float, int]] = {}
        """Per consumer, the earliest deadline and the lowest sequence of what was forgotten."""

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._heap)

    def next_sequence(self, consumer: str) -> int:
        """Where to go on reading."""
        return self._next.get(consumer, 1)

    def read_up_to(self, consumer: str, sequence: int) -> None:
        """Everything of `consumer` up to `sequence` has been added."""
        self._next[consumer] = sequence + 1

    def add(self, job: Waiting) -> None:
        """Remember a job."""
        heapq.heappush(self._heap, job)
        if len(self._heap) > self._limit:
            self._forget_latest()

    def keep_undelivered(self, delivered: Mapping[str, int]) -> None:
        """Forget jobs that their consumers have delivered since, and those whose consumer is gone."""
        kept = [job for job in self._heap if job.sequence > delivered.get(job.consumer, job.sequence)]
        if len(kept) < len(self._heap):
            heapq.heapify(kept)
            self._heap = kept
        for consumer in self._next.keys() - delivered.keys():
            self.start_over(consumer)

    def start_over(self, consumer: str) -> None:
        """Forget everything of a consumer: should it be there again, it is read from its beginning."""
        self._next.pop(consumer, None)
        self._forgotten.pop(consumer, None)
        self._heap = [job for job in self._heap if job.consumer != consumer]
        heapq.heapify(self._heap)

    def remove(self, sequences: set[int]) -> None:
        """Forget jobs that are gone."""
        self._heap = [job for job in self._heap if job.sequence not in sequences]
        heapq.heapify(self._heap)

    def due(self, now_s: float, at_most: int = LIMIT) -> list[Waiting]:
        """Take out the jobs whose deadline has passed, earliest first."""
        due: list[Waiting] = []
        while len(due) < at_most and self._heap and self._heap[0].deadline_s <= now_s:
            due.append(heapq.heappop(self._heap))
        for consumer, (deadline_s, sequence) in list(self._forgotten.items()):
            if deadline_s <= now_s or len(self._heap) < self._limit // 4:
                self._read_again(consumer, sequence)
        return due

    def _forget_latest(self) -> None:
        self._heap.sort()
        half = max(1, self._limit // 2)
        for job in self._heap[half:]:
            deadline_s, sequence = self._forgotten.get(job.consumer, (job.deadline_s, job.sequence))
            self._forgotten[job.consumer] = (min(deadline_s, job.deadline_s), min(sequence, job.sequence))
        del self._heap[half:]

    def _read_again(self, consumer: str, sequence: int) -> None:
        del self._forgotten[consumer]
        self._next[consumer] = min(self.next_sequence(consumer), sequence)
        self._heap = [job for job in self._heap if job.consumer != consumer or job.sequence < sequence]
        heapq.heapify(self._heap)
