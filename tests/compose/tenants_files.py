"""What a client's key for S3 reaches, as whoever holds it would try."""

import pytest

from headrace import Client
from headrace_contracts.errors import BlobForbidden


async def only_its_tenants_files(client: Client, admin: Client) -> None:
    """A producer writes and reads below its tenant, and touches no other file; the admin may."""
    ours, theirs = f"{client.settings.tenant}/inputs/probe", "another/inputs/probe"
    own, every = await client.blobs(), await admin.blobs()
    await own.put(ours, b"ours", "text/plain")
    await every.put(theirs, b"theirs", "text/plain")
    try:
        assert await own.get(ours) == b"ours"
        for refused in (
            lambda: own.get(theirs),
            lambda: own.put(theirs, b"forged", "text/plain"),
            lambda: own.delete(theirs),
            lambda: own.delete(ours),
            lambda: anext(aiter(own.list(""))),
        ):
            with pytest.raises(BlobForbidden):
                await refused()
        assert {ours, theirs} <= {info.key async for info in every.list("")}
        assert await every.get(theirs) == b"theirs"
    finally:
        await every.delete(ours)
        await every.delete(theirs)
