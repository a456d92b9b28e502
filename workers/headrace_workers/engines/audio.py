"""Samples that the input decoder left in a file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt


def read_samples(path: Path) -> npt.NDArray[np.float32]:
    """Raw 16-bit samples as numbers in -1..1. The file is mapped, so that its bytes are not in memory a second time."""
    samples = np.memmap(path, np.int16, "r").astype(np.float32)
    samples /= 32768.0
    return np.asarray(samples)
