"""Pictures for TensorBoard: uint8 [height, width, 3], drawn by Pillow, which TensorBoard needs."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# dark violet to yellow, in even steps of lightness: five colours, and those between them
_COLOURS = np.array(
    [[13, 8, 60], [84, 24, 120], [182, 54, 102], [245, 125, 50], [252, 253, 164]], float
)
_CELL, _LETTER = 44, 15  # pixels
_GAP = 4


def coloured(shares: np.ndarray) -> np.ndarray:
    """Colours uint8 [..., 3] of numbers 0..1."""
    place = np.clip(shares, 0, 1)[..., None] * (len(_COLOURS) - 1)
    low = np.minimum(place.astype(int), len(_COLOURS) - 2)[..., 0]
    mixed = _COLOURS[low] + (place - low[..., None]) * (_COLOURS[low + 1] - _COLOURS[low])
    return mixed.round().astype(np.uint8)


def confusion_picture(matrix: np.ndarray, genres: Sequence[str]) -> np.ndarray:
    """Counts [true genre, predicted genre], with the genres' names; colours are shares of a row."""
    font = ImageFont.load_default(_LETTER)
    count = len(genres)
    names = [name if len(name) <= 16 else f"{name[:15]}…" for name in genres]
    left = round(max(font.getlength(name) for name in names)) + 2 * _LETTER
    top, right = left + _LETTER, 2 * _LETTER
    picture = Image.new("RGB", (left + count * _CELL + right, top + count * _CELL + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_GAP, _GAP), "rows: true, columns: predicted", "black", font)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    for row in range(count):
        y = top + row * _CELL
        draw.text((left - _LETTER / 2, y + _CELL / 2), names[row], "black", font, anchor="rm")
        for column in range(count):
            x = left + column * _CELL
            colour = coloured(shares[row, column])
            draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), tuple(colour.tolist()))
            if matrix[row, column]:
                draw.text(
                    (x + _CELL / 2, y + _CELL / 2),
                    str(int(matrix[row, column])),
                    "black" if colour.mean() > 110 else "white",
                    font,
                    anchor="mm",
                )
    for column, name in enumerate(names):  # upwards
        label = Image.new("L", (left, 2 * _LETTER))
        ImageDraw.Draw(label).text((0, _LETTER), name, 255, font, anchor="lm")
        turned = label.rotate(90, expand=True)
        x = left + column * _CELL + _CELL // 2 - _LETTER
        picture.paste("black", (x, top - turned.height - _GAP), turned)
    return np.asarray(picture)


def spectrogram_picture(spectrograms: np.ndarray) -> np.ndarray:
    """Standardised spectrograms [n, bands, frames], two a row, low bands below; -2 to 3 deviations.

    Short ones are drawn wider, so that a masked part can be seen.
    """
    wider = max(1, round(200 / spectrograms.shape[2]))
    colours = coloured((spectrograms.astype(np.float32)[:, ::-1] + 2) / 5).repeat(wider, 2)
    if len(colours) % 2:
        colours = np.concatenate([colours, np.full_like(colours[:1], 255)])
    framed = np.pad(colours, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    n, height, width, _ = framed.shape
    rows = framed.reshape(n // 2, 2, height, width, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(n // 2 * height, 2 * width, 3)
