"""A causal language model and the rows it is writing: prefill, join, next token, leave.

Owns all tensors of text generation. Rows of different length share one forward: their caches are padded on the left,
so that every row's newest token is at the right end, and a mask hides the padding. Knows no jobs and no text.
"""

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, DynamicCache, GenerationConfig, PreTrainedModel

from headrace_contracts.model import ModelSpec
from headrace_workers.engines.chatter import silence_transformers
from headrace_workers.engines.refused import cannot_load
from headrace_workers.engines.text_sampling import Sampler, pick

# A prompt is read in pieces, and the rows that are being written take a token after each: larger pieces let them wait
# longer, smaller ones read long prompts more slowly.
PREFILL_TOKENS = 512

# For models that do not say: enough for most uses, and a cache that still fits.
_UNKNOWN_CONTEXT = 4096


def load_model(spec: ModelSpec, folder: Path, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model from safetensors, nothing from the network.

    Raises:
        WeightsError: the folder holds no causal language model that can be loaded.
    """
    silence_transformers()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=spec.allow_remote_code,
        )
    except (OSError, ValueError) as error:
        raise cannot_load(spec, folder, "cannot be loaded", error) from error
    return model.to(device).eval()


def end_tokens(model: PreTrainedModel, tokenizer_end: int | None) -> frozenset[int]:
    """Tokens that end a text, from the model's generation config, else the tokenizer's own."""
    config: GenerationConfig | None = model.generation_config
    declared = config.eos_token_id if config is not None else None
    if declared is None:
        declared = [] if tokenizer_end is None else tokenizer_end
    return frozenset(declared if isinstance(declared, list) else [declared])


def context_tokens(model: PreTrainedModel) -> int:
    """Tokens of prompt and answer that the model was made for."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if limit := getattr(config, name, None):
            return int(limit)
    return _UNKNOWN_CONTEXT


class Prefill:
    """A prompt on its way into a cache of its own, one piece per `advance`."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self.read = 0
        self.cache = DynamicCache()

    @property
    def done(self) -> bool:
        """Whether the whole prompt is in the cache."""
        return self.read == len(self.ids)


class Decoder:
    """The rows being written, oldest first."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._device = model.device
        self._accepts = inspect.signature(model.forward).parameters
        # Without a sliding window or state of its own: padding on the left needs every layer to keep every token.
        self._cache = DynamicCache()
        self._lengths: list[int] = []
        """Tokens of each row in the cache, without padding."""

    def __len__(self) -> int:
        return len(self._lengths)

    def warm_up(self) -> None:
        """Write a few tokens in two rows of different length: a model whose cache cannot be padded fails here."""
        greedy = Sampler(temperature=0.0, top_p=1.0, seed=0)
        long, short = Prefill([0, 0, 0]), Prefill([0])
        token = self.advance(long, greedy) or 0
        # Not read, but cut off the other: a job waits for this, and every reading is a pass over all weights.
        short.cache = copy.deepcopy(long.cache)
        for layer in short.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, : len(short.ids)], layer.values[:, :, : len(short.ids)]
        self.join(long)
        self.join(short)
        self.next_tokens([token, token], [greedy, greedy])
        self.leave(0)
        self.leave(0)

    def advance(self, prefill: Prefill, sampler: Sampler) -> int | None:
        """Read the next piece of a prompt.

        Returns:
            The first token of the answer when the whole prompt is read, else None; `BAD_TOKEN` as in `next_tokens`.
        """
        with torch.inference_mode():
            piece = prefill.ids[prefill.read : prefill.read + PREFILL_TOKENS]
            prefill.read += len(piece)
            ids = torch.tensor([piece], device=self._device)
            # Logits of the whole piece would be pieces x vocabulary numbers, and only the last are looked at.
            last_only = {"logits_to_keep": 1} if "logits_to_keep" in self._accepts else {}
            logits = self._model(input_ids=ids, **self._with(prefill.cache), **last_only).logits
            return pick(logits[:, -1], [sampler])[0] if prefill.done else None

    def _with(self, cache: DynamicCache) -> dict[str, object]:
        """The arguments that give a call its cache; libraries from 5.24 on have another name for it."""
        return {"cache" if "cache" in self._accepts else "past_key_values": cache, "use_cache": True}

    def join(self, prefill: Prefill) -> None:
        """Add a row whose prompt is read."""
        with torch.inference_mode():
            length = len(prefill.ids)
            if not self._lengths:
                self._cache = prefill.cache
            else:
                width = max(length, max(self._lengths))
                for ours, theirs in zip(self._cache.layers, prefill.cache.layers, strict=True):
                    ours.keys = torch.cat([_padded(ours.keys, width), _padded(theirs.keys, width)])
                    ours.values = torch.cat([_padded(ours.values, width), _padded(theirs.values, width)])
            self._lengths.append(length)

    def next_tokens(self, tokens: Sequence[int], samplers: Sequence[Sampler]) -> list[int]:
        """Append one token to every row, and choose the next.

        Args:
            tokens: the newest token of each row, in the order of the rows.
            samplers: how each row chooses.

        Returns:
            The next token of each row; `BAD_TOKEN` where the model computed values that are no numbers.
        """
        with torch.inference_mode():
            ids = torch.tensor(tokens, device=self._device).unsqueeze(1)
            width = max(self._lengths)
            if min(self._lengths) == width:
                logits = self._model(input_ids=ids, **self._with(self._cache)).logits
            else:
                lengths = torch.tensor(self._lengths, device=self._device).unsqueeze(1)
                mask = torch.arange(width, -1, -1, device=self._device) <= lengths
                # Models without it take positions from the mask.
                positions = {"position_ids": lengths} if "position_ids" in self._accepts else {}
                logits = self._model(input_ids=ids, attention_mask=mask, **self._with(self._cache), **positions).logits
            self._lengths = [length + 1 for length in self._lengths]
            return pick(logits[:, -1], samplers)

    def leave(self, row: int) -> None:
        """Remove a row, and the padding that only it needed."""
        with torch.inference_mode():
            before = max(self._lengths)
            del self._lengths[row]
            if not self._lengths:
                self._cache = DynamicCache()
                return
            kept = torch.tensor([i for i in range(len(self._lengths) + 1) if i != row], device=self._device)
            spare = before - max(self._lengths)
            for layer in self._cache.layers:
                # Copies: a view would keep the memory of the row that left.
                layer.keys = layer.keys[:, :, spare:].index_select(0, kept)
                layer.values = layer.values[:, :, spare:].index_select(0, kept)


def _padded(states: torch.Tensor, width: int) -> torch.Tensor:
    """(rows, heads, tokens, size) with zeros on the left up to `width` tokens."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))
