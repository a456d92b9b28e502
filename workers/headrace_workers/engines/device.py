"""Which device a model runs on, and in which number format. Imports the library that is asked, no other."""

import re
from typing import TYPE_CHECKING, Literal

from headrace_contracts.errors import InvalidSpec
from headrace_contracts.model import ModelSpec

if TYPE_CHECKING:
    import torch

DTypeName = Literal["float32", "float16", "bfloat16"]

_DEVICE = re.compile(r"auto|cpu|cuda(?::(?P<index>\d{1,3}))?")


def torch_device(spec: ModelSpec) -> str:
    """The device for torch, `cpu` or `cuda:<index>`; also sets torch's number of CPU threads.

    Raises:
        InvalidSpec: the model asks for a device that this machine does not have.
    """
    import torch

    torch.set_num_threads(spec.resources.threads)
    return choose(spec, torch.cuda.device_count() if torch.cuda.is_available() else 0)


def ctranslate2_device(spec: ModelSpec) -> tuple[str, int]:
    """The device for CTranslate2: `("cpu", 0)` or `("cuda", index)`.

    Raises:
        InvalidSpec: the model asks for a device that this machine does not have.
    """
    import ctranslate2

    kind, _, index = choose(spec, ctranslate2.get_cuda_device_count()).partition(":")
    return kind, int(index or 0)


def choose(spec: ModelSpec, gpus: int) -> str:
    """`cpu` or `cuda:<index>`, from what the model asks for and the number of GPUs that can be used.

    Raises:
        InvalidSpec: no such device.
    """
    wanted = spec.resources.device
    found = _DEVICE.fullmatch(wanted)
    if found is None:
        raise InvalidSpec(f"model {spec.name}: resources.device is {wanted!r} and must be auto, cpu, cuda or cuda:<n>")
    if wanted == "cpu" or (wanted == "auto" and gpus == 0):
        return "cpu"
    index = int(found["index"] or 0)
    if index >= gpus:
        raise InvalidSpec(
            f"model {spec.name}: resources.device is {wanted!r}, but engine `{spec.engine}` can use {gpus} GPUs here: "
            "check the driver and CUDA_VISIBLE_DEVICES, or set it to auto or cpu"
        )
    return f"cuda:{index}"


def torch_dtype(name: DTypeName | None, device: str, on_gpu: DTypeName) -> "torch.dtype":
    """The number format: as named, else float32 on a CPU (half formats are slower there) and `on_gpu` on a GPU."""
    import torch

    name = name or ("float32" if device == "cpu" else on_gpu)
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]
