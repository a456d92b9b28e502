"""From tokens to text that can be sent at once: whole characters only, and nothing that may be part of a stop text."""

from collections.abc import Sequence
from typing import Protocol

# What decoders put where bytes of a character are missing.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenDecoder(Protocol):
    """The part of a tokenizer that is needed here."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of some tokens."""
        ...


class TextStream:
    """Text of a growing list of tokens, piece by piece."""

    def __init__(self, decoder: TokenDecoder) -> None:
        self._decoder = decoder
        self._ids: list[int] = []
        # A token's text depends on the one before it (spaces, accents), so a token or more of context stays in the
        # window: `_ids` is context and news, `_sent` the text of it that was given out.
        self._context = 0
        self._sent = ""

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is half there."""
        self._ids.append(token)
        text = self._decoder.decode(self._ids)
        if text.endswith(_REPLACEMENT) or len(text) <= len(self._sent):
            return ""
        new = text[len(self._sent) :]
        del self._ids[: self._context]
        self._context = len(self._ids)
        self._sent = self._decoder.decode(self._ids)
        return new


class StopFilter:
    """Lets text through up to the first stop text, which is held back even if it comes in pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may be sent, and whether a stop text was found (then nothing may follow)."""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def rest(self) -> str:
        """What was held back, when no more text will come."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` that a stop text may begin with."""
        longest = min(len(text), max((len(stop) for stop in self._stops), default=1) - 1)
        for length in range(longest, 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
