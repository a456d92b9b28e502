"""Every role tries everything, on a real server with the generated configuration."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import matrix
import pytest
import pytest_asyncio
from matrix import ATTEMPTS, WHO, Attempt
from secured import TENANTS, TRUSTED, UNTRUSTED, SecuredBroker

from headrace_storage.auth.roles import Role
from headrace_storage.connection import Connection

ROLES = {
    matrix.PRODUCER: (Role.PRODUCER, TRUSTED),
    matrix.CONSUMER: (Role.CONSUMER, TRUSTED),
    matrix.STRANGER: (Role.PRODUCER, UNTRUSTED),
    matrix.STRANGER_CONSUMER: (Role.CONSUMER, UNTRUSTED),
    matrix.WORKER: (Role.WORKER, None),
    matrix.SCALER: (Role.SCALER, None),
    matrix.ADMIN: (Role.ADMIN, None),
}


class Prober:
    """Publishes and subscribes in one role, and hears what the server refuses."""

    def __init__(self, connection: Connection, tenant: str | None) -> None:
        self._connection = connection
        self._tenant = tenant or TRUSTED
        self._refused: list[str] = []
        heard = connection.refusals.heard

        def listen(text: str) -> None:
            self._refused.append(text)
            heard(text)

        connection.refusals.heard = listen  # type: ignore[method-assign]

    async def refused(self, attempt: Attempt) -> list[str]:
        """Those subjects of an attempt that the server refuses."""
        return [subject for subject in attempt.subjects if await self._is_refused(attempt.verb, subject)]

    async def _is_refused(self, verb: str, subject: str) -> bool:
        subject = subject.replace("<own>", self._tenant)
        self._refused.clear()
        nc = self._connection.nc
        if verb == "publish":
            await nc.publish(subject, b"")
            await nc.flush()
        else:
            subscription = await nc.subscribe(subject)
            await asyncio.sleep(0)
            await nc.flush()
            await subscription.unsubscribe()
        return any("permissions violation" in text for text in self._refused)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredBroker]:
    """Without streams: nothing that is allowed can do harm, and what is refused is refused all the same."""
    broker = SecuredBroker(tmp_path_factory.mktemp("secured") / "broker")
    try:
        await broker.start(*TENANTS)
        yield broker
    finally:
        await broker.stop()


@pytest.mark.parametrize("who", WHO)
async def test_a_role_may_do_what_the_table_says_and_nothing_else(broker: SecuredBroker, who: str) -> None:
    role, tenant = ROLES[who]
    wrong = []
    async with broker.connection(role, tenant) as connection:
        prober = Prober(connection, tenant)
        for attempt in ATTEMPTS:
            refused = await prober.refused(attempt)
            expected = [] if who in attempt.allowed else list(attempt.subjects)
            if refused != expected:
                wrong.append(f"{attempt.what}: refused {refused}, expected {expected}")
    assert wrong == []


@pytest.mark.parametrize("who", [matrix.PRODUCER, matrix.STRANGER])
async def test_a_tenant_that_asks_its_own_accounts_api_gets_nothing(broker: SecuredBroker, who: str) -> None:
    """The names of our API are renamed on their way; a client that does not rename them asks its own account."""
    role, tenant = ROLES[who]
    async with broker.connection(role, tenant) as connection:
        prober = Prober(connection, tenant)
        connection.nc._api_prefix = "$JS.API"
        for name in ("INFO", "STREAM.INFO.JOBS", "STREAM.CREATE.SPY", "DIRECT.GET.RESULTS.results.acme.m.j"):
            assert await prober._is_refused("publish", f"$JS.API.{name}"), name


@pytest.mark.parametrize("who", [matrix.WORKER, matrix.STRANGER])
async def test_no_key_no_entry(broker: SecuredBroker, who: str, tmp_path: Path) -> None:
    """A key that the server does not know, and a connection without one, are both refused."""
    import msgspec

    from headrace_contracts.errors import BrokerUnavailable
    from headrace_storage.auth.keys import new_user_key

    stranger = tmp_path / "stranger.nk"
    stranger.write_text(new_user_key().seed)
    nats = broker.settings(*ROLES[who]).nats
    for settings in (msgspec.structs.replace(nats, nkey=str(stranger)), msgspec.structs.replace(nats, nkey=None)):
        with pytest.raises(BrokerUnavailable, match=r"(?i)authorization"):
            async with Connection(settings, connect_deadline_s=0.5):
                pass


def test_the_page_has_the_table_of_now() -> None:
    page = matrix.PAGE.read_text(encoding="utf-8")
    assert page == matrix.with_table(page), "write it anew: python tests/security/matrix.py"
