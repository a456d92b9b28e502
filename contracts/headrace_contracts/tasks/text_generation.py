"""Text generation: a prompt or a conversation is continued, token by token."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace_contracts.limits import Limits, at_most, prompt_within
from headrace_contracts.tasks.text_to_image import MAX_SEED


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Role
    content: str


class TextGenerationInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exactly one of `prompt` (a single user turn) and `messages` (a conversation)."""

    prompt: Annotated[str, Meta(min_length=1)] | None = None
    messages: Annotated[tuple[Message, ...], Meta(min_length=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Most tokens to generate."""
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    """0 always takes the likeliest token."""
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Sample only from the likeliest tokens that together have this probability."""
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(max_length=16)] = ()
    """Texts that end the generation; they are not part of the output."""
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    """The same seed gives the same text; absent: a random one."""

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of `prompt` and `messages`")

    def check(self, limits: Limits) -> None:
        """Raise `InvalidInput` for the first field that is over a limit."""
        if self.prompt is not None:
            prompt_within("prompt", self.prompt, limits)
        if self.messages is not None:
            prompt_within("messages", "".join(m.content for m in self.messages), limits)
        prompt_within("stop", "".join(self.stop), limits)
        if self.max_tokens is not None:
            at_most("max_tokens", self.max_tokens, limits.max_output_tokens, "tokens")


class FinishReason(StrEnum):
    """Why the text ends where it does."""

    STOP = "stop"
    LENGTH = "length"


class TextGenerationOutput(msgspec.Struct, frozen=True):
    """The generated text, without the prompt."""

    text: str
    finish_reason: FinishReason
    seed: int
