"""Why a library would not load a folder, in words that name our settings and not its own."""

from pathlib import Path

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import ModelSpec


def cannot_load(spec: ModelSpec, folder: Path, what: str, error: Exception) -> WeightsError:
    """The error for weights that a library refused.

    Args:
        spec: the model.
        folder: its weights.
        what: what is wrong, as in `cannot be loaded`.
        error: the library's; those about Python code in the repository name an argument that nobody here can pass.
    """
    if "trust_remote_code" in str(error):
        return WeightsError(
            f"model {spec.name}: {folder} needs Python code that comes with the weights, which is refused: "
            "set `allow_remote_code = true` in its model file if you would run these files as a program"
        )
    return WeightsError(f"model {spec.name}: {folder} {what}: {error}")
