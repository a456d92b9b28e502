"""Errors as a terminal sees them: one sentence, one exit code."""

import difflib

from headrace.errors import BatchIncomplete, UnknownJob
from headrace_contracts.errors import (
    BlobKeyRefused,
    BlobUnavailable,
    BrokerForbidden,
    BrokerUnavailable,
    CredentialsRefused,
    HeadraceError,
    InvalidInput,
    InvalidName,
    InvalidSpec,
    JobConflict,
    MessageTooLarge,
    NoDeadLetter,
    QueueFull,
    ResultTimeout,
    SettingsError,
    UnknownModel,
)

FAILED = 1
WRONG = 2
LATER = 3
INTERRUPTED = 130

_WRONG = (
    BlobKeyRefused,
    BrokerForbidden,
    CredentialsRefused,
    InvalidInput,
    InvalidName,
    InvalidSpec,
    JobConflict,
    MessageTooLarge,
    NoDeadLetter,
    SettingsError,
    UnknownJob,
    UnknownModel,
)
_LATER = (BlobUnavailable, BrokerUnavailable, QueueFull, ResultTimeout)


def exit_code_of(error: HeadraceError) -> int:
    """Whose turn it is: the user's to change something, or time's."""
    if isinstance(error, BatchIncomplete):
        error = error.cause
    if isinstance(error, _WRONG):
        return WRONG
    return LATER if isinstance(error, _LATER) else FAILED


def sentence_of(error: HeadraceError) -> str:
    """The error's own words on one line, with the name that may have been meant."""
    sentence = " ".join(str(error).split())
    if isinstance(error, UnknownModel):
        sentence += did_you_mean(error.model, error.known)
    return sentence


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """`; did you mean ...?` if a known word is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
