"""From a job's prompt or conversation to tokens, by the model's own chat template.

A control token (`<|im_start|>`) comes from the template alone: spelled out in a job's text it is read as text, so that
nobody ends a turn or speaks as somebody else by writing it down.
"""

import re
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer

from headrace_contracts.errors import InvalidInput, WeightsError
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks import TextGenerationInput
from headrace_workers.engines.refused import cannot_load

# Characters that mean nothing to anybody.
_PRIVATE_USE = range(0xF0000, 0xFFFFE)


class Prompter:
    """A model's tokenizer and the longest text it may be given."""

    def __init__(self, tokenizer: Any, context: int) -> None:  # noqa: ANN401 - transformers has no types
        self.tokenizer = tokenizer
        self.context = context
        """Tokens of prompt and answer together."""
        self._controls = _pattern(tokenizer)

    @classmethod
    def load(cls, spec: ModelSpec, folder: Path, context: int) -> "Prompter":
        """Load a folder's tokenizer.

        Raises:
            WeightsError: there is none that works without its own code.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=spec.allow_remote_code
            )
        except (OSError, ValueError) as error:
            raise cannot_load(spec, folder, "has no tokenizer that can be loaded", error) from error
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise WeightsError(f"model {spec.name}: {folder} has no tokenizer.json, which streaming text needs")
        return cls(tokenizer, context)

    def encode(self, wanted: TextGenerationInput) -> list[int]:
        """The prompt's tokens; at least one more fits the context.

        Raises:
            InvalidInput: names `input.prompt` or `input.messages`: too long, or not what the chat template takes.
        """
        field = "input.prompt" if wanted.messages is None else "input.messages"
        if self.tokenizer.chat_template:
            ids = self._templated(wanted, field)
        elif wanted.prompt is not None:
            ids = list(self.tokenizer(wanted.prompt, split_special_tokens=True).input_ids)
        else:
            raise InvalidInput(field, "this model has no chat template, so it takes no conversation: send `prompt`")
        if not ids:
            raise InvalidInput(field, "holds nothing that this model reads")
        if len(ids) >= self.context:
            raise InvalidInput(
                field, f"{len(ids)} tokens leave no room for an answer in this model's context of {self.context} tokens"
            )
        return ids

    def _templated(self, wanted: TextGenerationInput, field: str) -> list[int]:
        if wanted.messages is not None:
            turns = [{"role": message.role.value, "content": message.content} for message in wanted.messages]
        else:
            turns = [{"role": "user", "content": wanted.prompt or ""}]
        seam = _absent_from("".join(turn["content"] for turn in turns), field)
        for turn in turns:
            turn["content"] = self._controls.sub(lambda found: found[0] + seam, turn["content"])
        try:
            text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except jinja2.TemplateError as error:
            # Templates refuse what their model was not trained on, such as two user turns in a row.
            raise InvalidInput(field, f"this model's chat template refuses it: {error}") from error
        # The template has the special tokens that a sequence begins with.
        pieces = [self.tokenizer(piece, add_special_tokens=False).input_ids for piece in text.split(seam) if piece]
        return [token for piece in pieces for token in piece]


def _pattern(tokenizer: Any) -> re.Pattern[str]:  # noqa: ANN401 - transformers has no types
    """The first character of every control token's name, wherever one begins, also inside another."""
    names = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names.update(str(name) for name in tokenizer.all_special_tokens)
    # A tokenizer may lower or raise what it reads before it looks for names.
    either = "|".join(re.escape(name) for name in sorted(names) if name) or r"(?!)"
    return re.compile(rf"(?=(?:{either})).", re.IGNORECASE | re.DOTALL)


def _absent_from(text: str, field: str) -> str:
    """A character that is nowhere in `text`, to mark where it is cut.

    Raises:
        InvalidInput: it has every character that is for private use.
    """
    for code in _PRIVATE_USE:
        if chr(code) not in text:
            return chr(code)
    raise InvalidInput(field, "holds every character that Unicode keeps for private use")
