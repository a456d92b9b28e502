"""Variables of an engine process; those that libraries read when they are imported hold for a zygote as well."""

import os

from headrace_contracts.model import ModelSpec

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No library reaches for a hub, and none draws bars."""


def engine_environment(spec: ModelSpec) -> dict[str, str]:
    """Ours, with as many threads as the model may use. In a forked process only the engine itself sets threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(spec.resources.threads), **QUIET}
