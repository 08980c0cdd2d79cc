"""What the features that librosa computes share: rate, window, hop and chunk of log_mel.

librosa takes seconds to import, so it is imported where something is computed.
"""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.data.files import exclusive_lock, user_id
from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack


_COMPILE = "import librosa, numpy; librosa.estimate_tuning(S=numpy.ones((513, 9), 'float32'))"


@functools.cache
def import_librosa() -> Any:
    """The library, with what it compiles."""
    share_compiled_code()
    import librosa

    return librosa


def share_compiled_code() -> None:
    """Have numba use what was compiled once on this machine, by one process that came to its end.

    librosa compiles functions when it is imported, and numba keeps the parts of each in files of
    their own. Two processes that compile at once leave parts that do not fit together, with which
    all later ones crash.
    """
    if "numba" in sys.modules or "NUMBA_CACHE_DIR" in os.environ:
        return
    made_by = (sys.prefix, sys.version, version("numba"), version("librosa"))
    name = hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"mgc_ray-numba-{user_id()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        if place.stat().st_uid != user_id():
            return  # what is in it would be executed
        if not (place / name).exists():
            with exclusive_lock(place, lambda holder: None):
                _compile(place, name)
    except (OSError, subprocess.SubprocessError):
        return  # numba then keeps its files where it always does
    os.environ["NUMBA_CACHE_DIR"] = str(place / name)


def _compile(place: Path, name: str) -> None:
    if (place / name).exists():  # another process was first
        return
    folder = tempfile.mkdtemp(dir=place)
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    command = [sys.executable, "-c", _COMPILE]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    os.rename(folder, place / name)


@configuration
class LibrosaFeature:
    """Bands over the same frames as `log_mel`."""

    kind: ClassVar[str] = "spectrogram"
    pitched: ClassVar[bool] = False

    log_mel: LogMel = setting(LogMel(), "The spectrogram whose frames these are.")

    @property
    def frames(self) -> int:
        return self.log_mel.frames

    @property
    def dtype(self) -> np.dtype:
        return self.log_mel.dtype

    def _described(self, kind: str, in_words: str, **more: Any) -> Params:
        spectrum = self.log_mel.described()
        return {
            "kind": kind,
            "sample_rate": spectrum["sample_rate"],
            "stft": spectrum["stft"],
            "window_is": spectrum["window_is"],
            **more,
            "in_words": in_words,
        }

    def magnitude(self, track: "DecodedTrack") -> np.ndarray:
        """The spectrum's magnitude, float32 [chunks, bins, frames]."""
        return track.once(("magnitude", self.log_mel), lambda: self._magnitude(track))

    def _magnitude(self, track: "DecodedTrack") -> np.ndarray:
        librosa = import_librosa()

        n_fft, hop_length = self.log_mel.n_fft, self.log_mel.hop_length
        chunks = track.chunks(self.log_mel.sample_rate)
        return np.stack(
            [np.abs(librosa.stft(chunk, n_fft=n_fft, hop_length=hop_length)) for chunk in chunks]
        )
