"""nkeys: the server knows the public key, a process has the seed, and no secret travels when it connects."""

import os

import msgspec

from headrace_contracts.errors import SettingsError


class KeyPair(msgspec.Struct, frozen=True):
    """A user's nkey."""

    seed: str
    """Secret: what the file of a role holds."""
    public: str

    def __repr__(self) -> str:
        return f"<KeyPair {self.public}>"


def new_user_key() -> KeyPair:
    """A key pair for one role.

    Raises:
        SettingsError: the library is not installed.
    """
    try:
        import nkeys
    except ModuleNotFoundError as error:
        raise SettingsError(f"nkeys need {error.name}: pip install 'nats-py[nkeys]'") from error
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    pair = nkeys.from_seed(bytearray(seed))
    return KeyPair(bytes(seed).decode(), bytes(pair.public_key).decode())
