"""All that the server's configuration is made from; holds no secret, so it may be kept and shown."""

import msgspec

from headrace_storage.auth.roles import OPERATORS, TENANTS, Role, Tenant


class User(msgspec.Struct, frozen=True):
    """One role, of one tenant or of the operator, and the key the server knows it by."""

    role: Role
    public_key: str
    tenant: str | None = None


class BrokerLimits(msgspec.Struct, frozen=True):
    """What the server may use, and what one client may send."""

    max_file_bytes: int = 32 << 30
    max_memory_bytes: int = 1 << 30
    max_payload_bytes: int = 8 << 20


class IngressLimits(msgspec.Struct, frozen=True):
    """Most that may wait in the ingress stream of one untrusted tenant; the next job is refused."""

    max_jobs: int = 1_000
    max_bytes: int = 64 << 20
    max_job_bytes: int = 1 << 20
    """Larger jobs are refused. Below what JOBS takes, so that everything that waits here can be forwarded."""


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files of the server, as paths it can read."""

    certificate: str
    key: str


class Plan(msgspec.Struct, frozen=True):
    """A broker's tenants, users and limits."""

    listen: str
    store_folder: str
    tenants: tuple[Tenant, ...]
    users: tuple[User, ...]
    limits: BrokerLimits = BrokerLimits()
    ingress: IngressLimits = IngressLimits()
    jetstream_blobs: bool = True
    tls: TlsFiles | None = None

    @property
    def untrusted(self) -> tuple[Tenant, ...]:
        """Tenants that submit through ingress streams."""
        return tuple(tenant for tenant in self.tenants if not tenant.trusted)

    def users_of(self, tenant: str | None) -> tuple[User, ...]:
        """Users of a tenant, or the operator's."""
        return tuple(user for user in self.users if user.tenant == tenant)


def roles_needed(tenants: tuple[Tenant, ...]) -> list[tuple[Role, str | None]]:
    """Every role there is to make a key for."""
    operators: list[tuple[Role, str | None]] = [(role, None) for role in OPERATORS]
    return operators + [(role, tenant.name) for tenant in tenants for role in TENANTS]
