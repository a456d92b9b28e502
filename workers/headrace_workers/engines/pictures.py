"""Pixels become picture files."""

from pathlib import Path
from typing import assert_never

import numpy as np
import numpy.typing as npt
from PIL import Image

from headrace_contracts.tasks import ImageFormat
from headrace_workers.frames import OutFile

# Visually lossless; beyond it files grow and pictures do not get better.
_LOSSY_QUALITY = 92


def write_picture(pixels: npt.NDArray[np.uint8], index: int, kind: ImageFormat, folder: Path) -> OutFile:
    """Write picture `index` of a job into `folder`.

    Args:
        pixels: (height, width, 3).
        index: from 0; becomes part of the file name.
        kind: the file format.
        folder: exists.

    Raises:
        OSError: the file cannot be written.
    """
    image = Image.fromarray(pixels)
    name = f"image-{index}.{kind.value}"
    match kind:
        case ImageFormat.PNG:
            image.save(folder / name, "PNG")
        case ImageFormat.JPEG:
            image.save(folder / name, "JPEG", quality=_LOSSY_QUALITY)
        case ImageFormat.WEBP:
            image.save(folder / name, "WEBP", quality=_LOSSY_QUALITY)
        case _:
            assert_never(kind)
    return OutFile(name, f"image/{kind.value}")
