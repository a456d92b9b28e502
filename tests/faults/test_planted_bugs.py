"""Bugs planted on purpose: each is caught, by the invariant it breaks, in a scenario that is clean without it.

That the scenarios are clean is what `test_scenarios` says.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from breaks import IN_CLIENTS, IN_WORKERS
from scenarios import SCENARIOS
from stage import play

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Planted:
    """A bug, where it shows, and what it breaks."""

    bug: str
    scenario: str
    breaks: str
    """At least this invariant."""
    deadline_s: float = 8.0
    """How long to wait for an empty queue: behind some bugs it never is."""


PLANTED = (
    Planted("ack_before_commit", "kill everywhere", "conservation"),
    Planted("no_self_fence", "zombie gives back", "mutual exclusion"),
    Planted("nak_without_delay", "store is away", "outages are waited out"),
    Planted("no_terminal_check", "cancel before anybody runs it", "no start after the end"),
    Planted("backlog_without_held", "backlog of a running job", "backlog is whole"),
    Planted("renewal_tied_to_engine", "step longer than the lease", "mutual exclusion"),
    Planted("key_without_nonce", "freeze past the lease", "artifacts whole"),
    Planted("queue_drops_oldest", "queue is full", "conservation"),
    Planted("ttl_from_the_draw", "expire before anybody runs it", "expiry"),
    Planted("cancel_without_result", "cancel while it runs", "client view"),
    Planted("result_replaced", "freeze past the lease", "nothing replaced"),
    Planted("outage_counts_as_failure", "store is away", "outages cost no attempt"),
    Planted("result_without_store", "many with files", "artifacts whole"),
    Planted("endless_attempts", "poison", "poison capped", deadline_s=12.0),
    Planted("unchecked_output", "outputs that are none", "truth"),
)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.bug)
async def test_a_planted_bug_is_caught(planted: Planted, tmp_path: Path) -> None:
    scenario = SCENARIOS[planted.scenario]
    setting = replace(scenario.setting, broken=(*scenario.setting.broken, planted.bug))
    judged = await play(tmp_path, setting, scenario.play, planted.deadline_s)
    assert planted.breaks in judged.violated, judged.violated
    # It was the bug, and not a worker that could not even start with it.
    assert "workers end well" not in judged.violated, judged.violated


def test_every_planted_bug_is_one() -> None:
    assert {planted.bug for planted in PLANTED} <= IN_WORKERS.keys() | IN_CLIENTS.keys()
    assert {planted.bug for planted in PLANTED} >= IN_CLIENTS.keys()
