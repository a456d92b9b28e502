"""Features of long recordings, block by block."""

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from headrace_workers.engines.mel import BlockwiseFeatureExtractor


@pytest.mark.parametrize("samples", [1, 200, 16_000, 16_000 * 61 + 77])
def test_blockwise_features_are_the_librarys(samples: int) -> None:
    waveform = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    # From almost nothing to loud: what is quiet is cut off relative to the loudest point of all blocks.
    waveform *= np.logspace(-8, -1, samples, dtype=np.float32)
    expected, ours = FeatureExtractor()(waveform), BlockwiseFeatureExtractor()(waveform)
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    assert np.abs(ours - expected).max(initial=0) < 1e-5
