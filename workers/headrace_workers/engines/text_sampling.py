"""Choosing the next token of a row: the likeliest, or a random one that follows from the row's seed alone."""

from collections.abc import Sequence

import torch

BAD_TOKEN = -1
"""Instead of a token, where a row's logits are no numbers."""

# Almost every nucleus is smaller; looking at these first spares sorting the whole vocabulary for each token.
_USUAL_NUCLEUS = 256


class Sampler:
    """How one row chooses. Its random numbers come from its own seed, so that its neighbours do not change its text."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self.temperature = temperature
        self.top_p = top_p
        # Always the CPU's generator: one number per token, and the same on every device.
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def draw(self, logits: torch.Tensor) -> torch.Tensor:
        """A token from `logits` (vocabulary,), by inverting the distribution at one random number; a scalar tensor."""
        uniform = torch.rand((), generator=self._generator, dtype=torch.float64).item()
        probabilities = torch.softmax(logits.double() / self.temperature, dim=-1)
        if self.top_p < 1.0:
            probabilities, tokens = _nucleus(probabilities, self.top_p)
        cumulated = probabilities.cumsum(dim=-1)
        index = torch.searchsorted(cumulated, cumulated[-1] * uniform, right=True).clamp(max=len(cumulated) - 1)
        return tokens[index] if self.top_p < 1.0 else index


def pick(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """The next token of every row.

    Args:
        logits: (rows, vocabulary).
        samplers: one per row.

    Returns:
        A token per row; `BAD_TOKEN` where the row's logits are no numbers.
    """
    best, tokens = logits.max(dim=-1)
    for row, sampler in enumerate(samplers):
        if sampler.temperature > 0:
            tokens[row] = sampler.draw(logits[row])
    # One transfer from the device for the whole batch.
    return torch.where(best.isfinite(), tokens, BAD_TOKEN).tolist()  # type: ignore[no-any-return]  # torch is untyped here


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens that together reach `top_p`, at least one: probabilities and tokens, likeliest first."""
    size = probabilities.shape[-1]
    likely, tokens = probabilities.topk(min(_USUAL_NUCLEUS, size))
    if likely.sum().item() < top_p:
        likely, tokens = probabilities.sort(descending=True)
    # A token belongs while those before it have not reached top_p.
    count = int(((likely.cumsum(dim=-1) - likely) < top_p).sum().item())
    return likely[:count], tokens[:count]
