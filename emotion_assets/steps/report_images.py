"""Images of reports: charts, contact sheets, and how a page embeds them."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from emotion_assets.core.images import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP_PX: Final = 2
_WEBP_QUALITY: Final = 70
_MAX_LABEL: Final = 20
_MAX_HORIZONTAL: Final = 40
"""Letters that fit side by side below the narrowest chart."""


def contact_sheet(pixels: Pixels, num_columns: int = 12) -> bytes:
    """Lay out images, uint8 (image, row, column) or with colors, in rows of `num_columns`; none give a blank sheet.

    The result is a WebP image, small enough for the metadata of a Dagster asset.
    """
    count, height, width, *colors = pixels.shape
    num_rows = max(1, -(-count // num_columns))
    sheet = np.full((num_rows * (height + _GAP_PX), num_columns * (width + _GAP_PX), *colors), 255, dtype=np.uint8)
    for index, image in enumerate(pixels):
        row, column = divmod(index, num_columns)
        top, left = row * (height + _GAP_PX), column * (width + _GAP_PX)
        sheet[top : top + height, left : left + width] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=_WEBP_QUALITY)
    return buffer.getvalue()


def label_classes(axes: Axes, names: Sequence[str], *, is_matrix: bool = False) -> None:
    """Write class names below a chart, and left of a matrix: shortened, and vertically below it if they are long."""
    shown = [name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…" for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=0 if sum(map(len, shown)) <= _MAX_HORIZONTAL else 90)
    if is_matrix:
        axes.set_yticks(range(len(names)), shown)


def encode_svg(figure: Figure) -> bytes:
    """Return a figure as SVG whose text the browser draws: it has fonts for every script, Matplotlib for a few."""
    import matplotlib as mpl  # noqa: PLC0415 -- slow, and Dagster imports this module at its start

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="svg", bbox_inches="tight")
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """Return the address by which a page contains an SVG or WebP image."""
    kind = "webp" if content[:4] == b"RIFF" else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
