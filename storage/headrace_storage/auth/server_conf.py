"""A plan as the text of nats.conf. Pure.

The operator's account has the streams. It exports to each tenant's account the subjects that one of the tenant's roles
may use, and nothing else; the permissions of a user then narrow these to its role.
"""

from collections.abc import Iterable, Sequence

import msgspec

from headrace_storage.auth.plan import Plan, User
from headrace_storage.auth.roles import SERVER_FACTS, TENANTS, Permissions, Tenant, in_tenants_account, permissions_of

OPERATOR_ACCOUNT = "HEADRACE"
SYSTEM_ACCOUNT = "SYS"
# A client that opens more is broken or hostile; both numbers are per tenant.
TENANT_CONNECTIONS = 256
TENANT_SUBSCRIPTIONS = 10_000

_HEAD = """\
# Written by `headrace auth`; the subjects are explained in storage/headrace_storage/auth/roles.py.
# Has public keys only. After `headrace auth add-tenant` restart the server: a reload does not connect a new account.
server_name: headrace
listen: {listen}
max_payload: {max_payload}
jetstream {{
    store_dir: {store}
    # An acknowledged job survives a power cut.
    sync_interval: "always"
    max_file_store: {max_file}
    max_memory_store: {max_memory}
}}
"""

_TLS = """\
tls {{
    cert_file: {certificate}
    key_file: {key}
}}
"""


def server_conf(plan: Plan) -> str:
    """The configuration that a plain `nats-server -c` runs."""
    text = _HEAD.format(
        listen=_quoted(plan.listen),
        max_payload=plan.limits.max_payload_bytes,
        store=_quoted(plan.store_folder),
        max_file=plan.limits.max_file_bytes,
        max_memory=plan.limits.max_memory_bytes,
    )
    if plan.tls is not None:
        text += _TLS.format(certificate=_quoted(plan.tls.certificate), key=_quoted(plan.tls.key))
    lines = [f"system_account: {SYSTEM_ACCOUNT}", "accounts {", *_system_account(), *_operator_account(plan)]
    for tenant in plan.tenants:
        lines += _tenant_account(plan, tenant)
    return text + "\n".join([*lines, "}", ""])


def account_of(tenant: str) -> str:
    """Name of a tenant's account on the broker."""
    return f"TENANT_{tenant}"


def _system_account() -> list[str]:
    """Without users; the operator's account may ask the server about its JetStream."""
    export = f"{{service: {_quoted(SERVER_FACTS)}, accounts: [{OPERATOR_ACCOUNT}]}}"
    return [f"    {SYSTEM_ACCOUNT} {{", f"        exports: [{export}]", "    }"]


def _operator_account(plan: Plan) -> list[str]:
    lines = [f"    {OPERATOR_ACCOUNT} {{", "        jetstream: enabled", "        users: ["]
    lines += [
        _user(user, permissions_of(user.role, jetstream_blobs=plan.jetstream_blobs)) for user in plan.users_of(None)
    ]
    lines += ["        ]", "        exports: ["]
    # One line per subject: of two the server keeps the last, and the tenants of the first lose it.
    exports: dict[str, list[str]] = {}
    for tenant in plan.tenants:
        services, streams, many = _crossing(plan, tenant)
        for subject in services:
            answers = "response_type: stream, " if subject in many else ""
            exports.setdefault(f"service: {_quoted(subject)}, {answers}", []).append(account_of(tenant.name))
        for subject in streams:
            exports.setdefault(f"stream: {_quoted(subject)}, ", []).append(account_of(tenant.name))
    for export, accounts in exports.items():
        lines.append(f"            {{{export}accounts: [{', '.join(map(_quoted, accounts))}]}}")
    lines += ["        ]", "        imports: ["]
    lines.append(f"            {{service: {{account: {SYSTEM_ACCOUNT}, subject: {_quoted(SERVER_FACTS)}}}}}")
    return [*lines, "        ]", "    }"]


def _tenant_account(plan: Plan, tenant: Tenant) -> list[str]:
    services, streams, _ = _crossing(plan, tenant)
    lines = [
        f"    {_quoted(account_of(tenant.name))} {{",
        f"        limits: {{max_connections: {TENANT_CONNECTIONS}, max_subscriptions: {TENANT_SUBSCRIPTIONS}}}",
        "        users: [",
    ]
    for user in plan.users_of(tenant.name):
        permissions = permissions_of(user.role, tenant, jetstream_blobs=plan.jetstream_blobs)
        renamed = tuple(in_tenants_account(subject) for subject in permissions.publish)
        lines.append(_user(user, Permissions(renamed, permissions.subscribe)))
    lines += ["        ]", "        imports: ["]
    for kind, subjects in (("service", services), ("stream", streams)):
        for subject in subjects:
            there = f"{{account: {OPERATOR_ACCOUNT}, subject: {_quoted(subject)}}}"
            here = in_tenants_account(subject)
            renaming = "" if here == subject else f", to: {_quoted(here)}"
            lines.append(f"            {{{kind}: {there}{renaming}}}")
    return [*lines, "        ]", "    }"]


def _crossing(plan: Plan, tenant: Tenant) -> tuple[list[str], list[str], set[str]]:
    """What goes between a tenant's account and ours: requests out, messages in, requests with many answers."""
    granted = [permissions_of(role, tenant, jetstream_blobs=plan.jetstream_blobs) for role in TENANTS]
    services = _union(permissions.publish for permissions in granted)
    streams = _union(permissions.subscribe for permissions in granted)
    return services, streams, {subject for permissions in granted for subject in permissions.many_answers}


def _union(groups: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(subject for group in groups for subject in group))


def _user(user: User, permissions: Permissions) -> str:
    publish, subscribe = (
        "".join(f"\n                    {_quoted(subject)}" for subject in subjects)
        for subjects in (permissions.publish, permissions.subscribe)
    )
    answers = '\n                allow_responses: {max: 1, expires: "1m"}' if permissions.answers else ""
    whose = user.role if user.tenant is None else f"{user.role} of {user.tenant}"
    return f"""\
            # {whose}
            {{nkey: {user.public_key}, permissions: {{
                publish: {{allow: [{publish}
                ]}}
                subscribe: {{allow: [{subscribe}
                ]}}{answers}
            }}}}"""


def _quoted(text: str) -> str:
    """A string as nats-server reads it."""
    return msgspec.json.encode(text).decode()
