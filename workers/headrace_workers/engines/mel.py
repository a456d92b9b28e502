"""Whisper's log-Mel features, computed block by block.

faster-whisper transforms a recording in one piece, and an hour of it takes 3.4 GB on the way. Block by block the same
features need what they are stored in (0.12 GB an hour) and a little more.
"""

import numpy as np
import numpy.typing as npt
from faster_whisper.feature_extractor import FeatureExtractor

# A minute: small beside the features of a long recording, large beside the cost of a call.
_BLOCK_FRAMES = 6_000

_DYNAMIC_RANGE = 8.0
"""Orders of magnitude below the loudest point of the recording that are kept."""


class BlockwiseFeatureExtractor(FeatureExtractor):  # type: ignore[misc]  # faster-whisper has no types
    """Gives the same features as its parent, up to rounding."""

    def __call__(
        self, waveform: npt.NDArray[np.float32], padding: int = 160, chunk_length: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Features of a recording.

        Args:
            waveform: (samples,), 16 kHz.
            padding: zeros to append.
            chunk_length: has to be None: windows of another length are not used here.

        Returns:
            (Mel bands, frames), a frame per 10 ms.
        """
        assert chunk_length is None
        half = self.n_fft // 2
        padded = np.pad(np.pad(waveform, (0, padding)), half, mode="reflect")
        # The last frame reaches beyond the recording; the parent leaves it out, too.
        frames = (len(padded) - self.n_fft) // self.hop_length
        features = np.empty((len(self.mel_filters), frames), np.float32)
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        for begin in range(0, frames, _BLOCK_FRAMES):
            end = min(begin + _BLOCK_FRAMES, frames)
            piece = padded[begin * self.hop_length : (end - 1) * self.hop_length + self.n_fft]
            spectrum = self.stft(
                piece, self.n_fft, self.hop_length, window=window, center=False, return_complex=True
            ).astype(np.complex64)
            energies = self.mel_filters @ (np.abs(spectrum) ** 2)
            features[:, begin:end] = np.log10(np.clip(energies, 1e-10, None))
        np.maximum(features, features.max(initial=-10.0) - _DYNAMIC_RANGE, out=features)
        features += 4.0
        features /= 4.0
        return features
