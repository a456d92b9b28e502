"""A diffusers text-to-image pipeline: loading it safely, what it accepts, and one call of it.

Knows the library and no jobs; imported only where a pipeline is loaded.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline

from headrace_contracts.errors import ErrorCode, Fault, InvalidInput, InvalidSpec, Permanent
from headrace_contracts.model import ModelSpec
from headrace_workers.engines.chatter import silence_diffusers
from headrace_workers.engines.refused import cannot_load

Pixels = npt.NDArray[np.uint8]

_NEEDED = ("prompt", "num_inference_steps", "generator", "callback_on_step_end", "output_type")


class Settings(msgspec.Struct, frozen=True):
    """What all pictures of one call share; None leaves it to the pipeline."""

    width: int
    height: int
    steps: int
    guidance_scale: float | None
    has_negative: bool


class Drawing(msgspec.Struct, frozen=True):
    """One picture of a call."""

    prompt: str
    negative_prompt: str
    seed: int


class Pipeline:
    """A loaded pipeline on its device. Not thread-safe: the scheduler inside has a state."""

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self._pipe = pipe
        self._parameters = inspect.signature(pipe.__call__).parameters

    @classmethod
    def load(cls, spec: ModelSpec, folder: Path, device: str, dtype: torch.dtype, variant: str | None) -> "Pipeline":
        """Load from a folder with `model_index.json`; safetensors only, nothing from the network.

        Raises:
            WeightsError: the folder holds no pipeline that can be loaded.
            InvalidSpec: it is no text-to-image pipeline.
        """
        silence_diffusers()
        try:
            pipe = DiffusionPipeline.from_pretrained(
                str(folder),
                dtype=dtype,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=spec.allow_remote_code,
            )
        except (OSError, ValueError) as error:
            raise cannot_load(spec, folder, "cannot be loaded", error) from error
        pipe.set_progress_bar_config(disable=True)
        loaded = cls(pipe.to(device))
        if missing := [name for name in _NEEDED if name not in loaded._parameters]:
            kind = type(pipe).__name__
            raise InvalidSpec(f"model {spec.name}: {kind} makes no picture from text: it takes no {', '.join(missing)}")
        return loaded

    @property
    def default_steps(self) -> int:
        """Denoising steps of a call that names none."""
        return int(self._parameters["num_inference_steps"].default)

    @property
    def native_size(self) -> tuple[int, int] | None:
        """Width and height in pixels that the model was made for, where its configuration says so."""
        latent = getattr(self._pipe, "default_sample_size", None)
        for name in ("unet", "transformer"):
            if latent is None and (part := getattr(self._pipe, name, None)) is not None:
                latent = getattr(part.config, "sample_size", None)
        if latent is None:
            return None
        height, width = (latent, latent) if isinstance(latent, int) else latent
        factor = int(getattr(self._pipe, "vae_scale_factor", 8))
        return width * factor, height * factor

    def check_accepts(self, field: str) -> None:
        """Refuse an input field that the pipeline has no parameter for.

        Raises:
            InvalidInput: names the field.
        """
        if field not in self._parameters:
            raise InvalidInput(f"input.{field}", f"this model ({type(self._pipe).__name__}) does not take it")

    def check_prompt(self, field: str, text: str) -> None:
        """Refuse a text that no text encoder of the pipeline reads to its end; the library would cut it silently.

        Where there are several encoders, one may be made for a summary only (CLIP beside T5), so one is enough.

        Raises:
            InvalidInput: names the field, the tokens and the limit.
        """
        longest = self._parameters.get("max_sequence_length")
        ceiling = longest.default if longest is not None and isinstance(longest.default, int) else None
        worst: tuple[int, int] | None = None
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
            tokenizer = getattr(self._pipe, name, None)
            if tokenizer is None:
                continue
            limit = min(int(tokenizer.model_max_length), ceiling or tokenizer.model_max_length)
            tokens = len(tokenizer(text, truncation=False).input_ids)
            if tokens <= limit:
                return
            if worst is None or limit > worst[1]:
                worst = (tokens, limit)
        if worst is not None:
            tokens, limit = worst
            raise InvalidInput(f"input.{field}", f"{tokens} tokens is over this model's limit of {limit} tokens")

    def draw(
        self, settings: Settings, drawings: Sequence[Drawing], on_step: Callable[[float], None]
    ) -> list[Pixels | Permanent]:
        """Draw all pictures in one call.

        Args:
            settings: shared by all pictures.
            drawings: one or more; each has its own generator, so its neighbours do not change it.
            on_step: called after every denoising step with the part done, in (0, 1]; may raise to leave the call.

        Returns:
            Pixels of each picture, (height, width, 3); an error where the model gave values that are no numbers, or
            its own safety checker withheld the picture.
        """

        def after_step(
            pipe: DiffusionPipeline, index: int, _timestep: torch.Tensor, kwargs: dict[str, torch.Tensor]
        ) -> dict[str, torch.Tensor]:
            # Schedulers of second order take more timesteps than they were asked for steps.
            on_step((index + 1) / max(int(getattr(pipe, "num_timesteps", settings.steps)), index + 1))
            return kwargs

        arguments: dict[str, Any] = {  # the library's own keyword arguments
            "prompt": [d.prompt for d in drawings],
            "num_inference_steps": settings.steps,
            # Numbers from the CPU's generator: the same picture on every device.
            "generator": [torch.Generator("cpu").manual_seed(d.seed) for d in drawings],
            "callback_on_step_end": after_step,
            "output_type": "np",
        }
        for name, value in (("width", settings.width), ("height", settings.height)):
            if name in self._parameters:
                arguments[name] = value
        if settings.guidance_scale is not None:
            arguments["guidance_scale"] = settings.guidance_scale
        if settings.has_negative:
            arguments["negative_prompt"] = [d.negative_prompt for d in drawings]
        drawn = self._pipe(**arguments)
        withheld = getattr(drawn, "nsfw_content_detected", None) or [False] * len(drawings)
        return [_pixels(image, hidden) for image, hidden in zip(drawn.images, withheld, strict=True)]


def _pixels(image: npt.NDArray[np.float32], withheld: bool) -> Pixels | Permanent:
    """(height, width, 3) in 0..1 to bytes, rounded as diffusers does."""
    if withheld:  # the library then gives a black picture
        return Permanent(ErrorCode.MODEL_ERROR, "this model's safety checker withheld the picture", Fault.MODEL)
    if not np.isfinite(image).all():
        # Not worth another run: the same numbers would come out again.
        message = (
            "the model computed values that are no numbers (NaN), so there is no picture: another seed may work; "
            "if none does, the model needs `dtype` float32 or bfloat16"
        )
        return Permanent(ErrorCode.MODEL_ERROR, message, Fault.MODEL)
    return (image * 255).round().astype(np.uint8)
