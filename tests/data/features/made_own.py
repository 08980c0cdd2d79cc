"""Features in files of one's own; the first is the example of the documentation."""

import re
from pathlib import Path

import torch

DOCS = Path(__file__).parents[3] / "docs"


def example() -> str:
    """The file that docs/encoders.md shows."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "encoders.md").read_text("utf-8"), re.S)
    return str(code)


def write_encoder(folder: Path, name: str = "my_encoder", seed: int = 0) -> Path:
    """The example with weights of its own; its file."""
    torch.manual_seed(seed)
    weights = folder / f"{name}.pt"
    torch.save(torch.nn.Conv1d(1, 64, kernel_size=512, stride=160).state_dict(), weights)
    path = folder / f"{name}.py"
    path.write_text(example().replace("/models/my_net.pt", str(weights)))
    return path


LOUDNESS = '''
"""The power of each tenth of a second, as a spectrogram of one band."""

import numpy as np
from mgc_ray.settings import configuration, setting

CHOICES = ("db", "power")


@configuration
class Feature:
    kind = "spectrogram"
    pitched = False
    bands = 1
    dtype = np.dtype(np.float32)

    unit: str = setting("power", "The unit.")
    frames: int = setting(10, "Frames.", ge=1)

    def compute(self, track):
        chunks = track.chunks(8_000)
        power = chunks[:, : self.frames * 800].reshape(len(chunks), self.frames, 800).var(2)
        values = 10 * np.log10(power + 1e-9) if self.unit == "db" else power
        return values[:, None].astype(np.float32)

    def described(self):
        return {"kind": "loudness", "in_words": "The variance of each tenth of a second."}


def make(argument, chunk_seconds):
    return Feature(unit=argument or "power", frames=int(10 * chunk_seconds))


def column(argument):
    return f"loudness:{argument}" if argument else "loudness"
'''
