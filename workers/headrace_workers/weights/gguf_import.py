"""GGUF to safetensors: unpack a quantised file once, so that every later load takes 0.3 s instead of 15.

Imports torch and transformers, and needs about twice the model's size in memory: run it in a process of its own
(`python -m headrace_workers.weights`).
"""

from importlib.metadata import version
from pathlib import Path

from headrace_contracts.errors import WeightsError
from headrace_workers.weights.cache import Progress

# Raise it when the files come out differently: earlier imports are then made again.
IMPORT_VERSION = 1


def import_gguf(source: Path, out: Path, dtype: str, progress: Progress) -> dict[str, str]:
    """Write a GGUF file's model and tokenizer to the folder `out` as transformers loads them.

    Args:
        source: the GGUF file.
        out: an existing, empty folder.
        dtype: of the written weights: float32, bfloat16 or float16.
        progress: told of each phase.

    Returns:
        Versions of the libraries that did it.

    Raises:
        WeightsError: transformers cannot read the file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch_dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    try:
        progress(f"reading the tokenizer of {source.name}")
        of_file = {"gguf_file": source.name, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **of_file)
        progress(f"unpacking {source.name} ({source.stat().st_size / 1e6:.0f} MB) to {dtype}")
        packed = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch_dtype, **of_file)
    except Exception as error:
        # transformers raises nearly anything for a file it does not understand.
        raise WeightsError(f"cannot import {source}: {_first_line(error)}") from error
    config = packed.config
    # A model that was loaded from GGUF counts as quantised and refuses to be saved, though its weights are plain by
    # now. A twin that borrows them (built on `meta`: without memory of its own) saves like any other model.
    del config.quantization_config
    config.dtype = torch_dtype
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch_dtype)
    plain.load_state_dict(packed.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = packed.generation_config
    progress("writing safetensors")
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {name: version(name) for name in ("torch", "transformers", "gguf")}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
