"""What the checker says: one verdict per invariant."""

from collections.abc import Callable, Iterator

import msgspec

from headrace_loadgen.check.history import History


class Violation(msgspec.Struct, frozen=True):
    """One thing that must never happen, and did."""

    job_id: str
    """Empty if it is about no single job."""
    problem: str


class Verdict(msgspec.Struct, frozen=True):
    """An invariant and what broke it."""

    invariant: str
    sentence: str
    looked_at: int
    """How many things were compared; with none, the verdict says nothing."""
    violations: tuple[Violation, ...]


Finding = Violation | None
"""What one comparison came to."""

Invariant = Callable[[History], Iterator[Finding]]
"""Yields a finding for each thing it looked at. The docstring is what the report says."""
