"""Text to image: a prompt becomes one picture or several."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace_contracts.limits import Limits, at_most, prompt_within

MAX_SEED = 2**63 - 1


class ImageFormat(StrEnum):
    """File format of the pictures."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class TextToImageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to draw. Absent fields take the model's defaults."""

    prompt: Annotated[str, Meta(min_length=1)]
    negative_prompt: str = ""
    width: Annotated[int, Meta(ge=8, multiple_of=8)] | None = None
    """Pixels."""
    height: Annotated[int, Meta(ge=8, multiple_of=8)] | None = None
    """Pixels."""
    steps: Annotated[int, Meta(ge=1)] | None = None
    """Denoising steps: more is finer and slower."""
    guidance_scale: Annotated[float, Meta(ge=0, le=50)] | None = None
    """How closely to follow the prompt."""
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    """The same seed gives the same picture; absent: a random one, named in the output."""
    num_images: Annotated[int, Meta(ge=1)] = 1
    format: ImageFormat = ImageFormat.PNG

    def check(self, limits: Limits) -> None:
        """Raise `InvalidInput` for the first field that is over a limit."""
        prompt_within("prompt", self.prompt, limits)
        prompt_within("negative_prompt", self.negative_prompt, limits)
        at_most("num_images", self.num_images, limits.max_images)
        if self.steps is not None:
            at_most("steps", self.steps, limits.max_steps)
        # One side alone may already be too much; the other is at least 8.
        sides = (self.width or 8) * (self.height or 8)
        at_most("width" if self.width else "height", sides, limits.max_pixels, "pixels (width x height)")


class TextToImageOutput(msgspec.Struct, frozen=True):
    """One entry per picture, in order; `images` are names of artifacts."""

    images: tuple[str, ...]
    seeds: tuple[int, ...]
    width: int
    height: int
