"""The `options` of a model, read into a struct that its engine declares."""

from pathlib import Path
from typing import TypeVar

import msgspec

from headrace_contracts.errors import InvalidSpec, WeightsError
from headrace_contracts.model import ModelSpec

OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)


def read_options(spec: ModelSpec, kind: type[OptionsT]) -> OptionsT:
    """The model's options as `kind`, which forbids unknown fields.

    Raises:
        InvalidSpec: names the model, the option and the reason.
    """
    try:
        return msgspec.convert(spec.options, kind)
    except msgspec.ValidationError as error:
        known = ", ".join(kind.__struct_fields__)
        raise InvalidSpec(f"model {spec.name}: options: {error} (engine `{spec.engine}` has: {known})") from error


def need_folder(spec: ModelSpec, weights: Path | None, *files: str) -> Path:
    """The weights folder, which must hold `files`: libraries look for missing ones on the network.

    Raises:
        WeightsError: there is no folder, or a file is missing.
    """
    if weights is None:
        raise WeightsError(f"model {spec.name}: engine `{spec.engine}` needs weights, and the model names none")
    for name in files:
        if not (weights / name).is_file():
            raise WeightsError(f"model {spec.name}: {weights} has no {name}, which engine `{spec.engine}` needs")
    return weights
