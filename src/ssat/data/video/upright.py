"""Decoded frames turned as a player shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = tuple[int, int, int, int]
UPRIGHT: Matrix = (1, 0, 0, 1)


def matrix_of(raw: Any) -> Matrix:
    """a, b, c, d of the display matrix as signs: (x, y) of the coded frame is shown at (a x + c y, b x + d y).

    Not `frame.rotation`, which says 180 of a frame that is mirrored.
    """
    side = raw.side_data.get("DISPLAYMATRIX")
    if side is None:
        return UPRIGHT
    values = np.frombuffer(bytes(side), np.int32)[[0, 1, 3, 4]].astype(np.int64)
    a, b, c, d = (int(sign) for sign in np.sign(values) * (2 * np.abs(values) > np.abs(values).max()))
    return (a, b, c, d) if abs(a * d - b * c) == 1 else UPRIGHT  # a shear or a turn by 45 degrees stays as it is


def upright_shape(raw: Any, matrix: Matrix) -> tuple[int, int]:
    """Height and width of the frame as it is shown."""
    return (raw.width, raw.height) if matrix[1] else (raw.height, raw.width)


def upright(raw: Any, matrix: Matrix) -> NDArray[np.uint8]:
    """(H, W, 3) RGB as it is shown."""
    # By default it would start threads for every frame, as many as the machine has cores.
    image: NDArray[np.uint8] = raw.to_ndarray(format="rgb24", threads=1)
    a, b, c, d = matrix
    if b:  # x becomes the vertical axis
        image = image.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(image[:: d or 1, :: a or 1])
