"""What a model accepts: upper bounds that are checked before the model sees an input."""

import msgspec

from headrace_contracts.errors import InvalidInput


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Upper bounds of one model. The defaults suit a small model; every model file may set its own."""

    max_file_bytes: int = 100 * 1024 * 1024
    """Largest input file."""
    max_prompt_chars: int = 20_000
    """Longest prompt, in characters; the tokeniser's own limit is checked by the engine."""
    max_steps: int = 100
    """Denoising steps of one image."""
    max_pixels: int = 2048 * 2048
    """Width times height of one image."""
    max_images: int = 4
    """Images of one job."""
    max_audio_s: float = 2 * 3600.0
    """Length of a recording, in seconds."""
    max_sample_rate: int = 192_000
    """Samples per second of a recording, as its file has them."""
    max_channels: int = 32
    """Channels of a recording."""
    max_decode_s: float = 120.0
    """Seconds to decode a file: two hours of speech take a tenth of it, so this ends what never ends."""
    max_decode_bytes: int = 512 * 1024 * 1024
    """Memory to decode a file, beside what the decoder itself takes; its samples go to disk."""
    max_output_tokens: int = 4096
    """Tokens one job may generate."""


def at_most(field: str, value: float, limit: float, unit: str = "") -> None:
    """Refuse `value` above `limit`, naming both.

    Raises:
        InvalidInput: `input.<field>` is over the limit.
    """
    if value > limit:
        suffix = f" {unit}" if unit else ""
        raise InvalidInput(
            f"input.{field}", f"{_plain(value)}{suffix} is over this model's limit of {_plain(limit)}{suffix}"
        )


def prompt_within(field: str, text: str, limits: Limits) -> None:
    """Refuse a text that is too long or holds what no text has.

    Raises:
        InvalidInput: `input.<field>` is over `max_prompt_chars`, or has a NUL, at which C code would cut it off.
    """
    at_most(field, len(text), limits.max_prompt_chars, "characters")
    if "\0" in text:
        raise InvalidInput(f"input.{field}", "holds a NUL character, which is no text")


def _plain(number: float) -> str:
    """Integers in full, others as short as they can be."""
    return str(number) if isinstance(number, int) else f"{number:g}"
