"""Turn a table of pixels into image files: FER2013's `fer2013.csv` and `icml_face_data.csv`.

A row has `emotion`, a code from 0 to 6 or a word, `pixels`, the gray values of a square separated by spaces, and
perhaps `Usage`, the part that it belongs to.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import IO, Final

import numpy as np
from PIL import Image
from tqdm import tqdm

from emotion_assets.core.classes import raw_folder
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import csv_rows
from emotion_assets.core.images import MIN_SIDE_PX
from emotion_assets.importers.importer import Importer

TABLE_SUFFIX: Final = ".csv"
FER2013_CODES: Final = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
_MAX_CELL_BYTES: Final = 2**20


def import_table(stream: IO[bytes], importer: Importer, folders: Sequence[str]) -> None:
    """Write the image of each row to `<folders>/<Usage>/<emotion>/<row>.png`; a table without pixels is left out.

    Raises:
        UnusableDataError: the table is not UTF-8 text.
    """
    csv.field_size_limit(_MAX_CELL_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv_rows(text)
    try:
        columns = {name.strip().casefold(): index for index, name in enumerate(next(rows, []))}
        if not columns.keys() >= {"emotion", "pixels"}:
            importer.left_out["a table without the columns emotion and pixels"] += 1
            return
        for number, row in enumerate(tqdm(rows, "Reading rows", unit=" rows"), start=1):
            _import_row(number, row, columns, importer, folders)
    except (csv.Error, UnicodeDecodeError) as error:
        name = "/".join(folders) or "file"
        raise UnusableDataError(f"The table {name} cannot be read ({error}). Save it as CSV in UTF-8.") from error
    finally:
        text.detach()  # the caller closes the stream


def _import_row(
    number: int, row: list[str], columns: dict[str, int], importer: Importer, folders: Sequence[str]
) -> None:
    if len(row) < len(columns):
        importer.left_out["a row with too few columns"] += 1
        return
    emotion, usage = row[columns["emotion"]].strip(), row[columns["usage"]].strip() if "usage" in columns else ""
    code = emotion.removesuffix(".0")
    if code.isdecimal() and (label := importer.classes.find(code)):
        emotion = raw_folder(label)
    elif code.isdecimal():
        # Whoever lists codes of their own does not mean FER2013's by the others.
        has_own_codes = any(name.isdecimal() for name in importer.classes.folders)
        if has_own_codes or int(code) >= len(FER2013_CODES) or not any(map(importer.classes.find, FER2013_CODES)):
            importer.left_out["a row whose code names no class: list it in quotes under folders in classes.yaml"] += 1
            return
        emotion = FER2013_CODES[int(code)]
    elif not emotion:
        importer.left_out["a row without an emotion"] += 1
        return
    path = importer.wants([*folders, *filter(None, [usage]), emotion, f"{number:06}.png"])
    if path is None:
        return
    try:
        values = np.array(row[columns["pixels"]].split(), dtype=np.uint8)
    except (ValueError, OverflowError):
        values = np.empty(0, dtype=np.uint8)
    side = math.isqrt(len(values))
    if side < MIN_SIDE_PX or side * side != len(values):
        importer.left_out["a row whose pixels are not a square of values from 0 to 255"] += 1
        return
    file = io.BytesIO()
    Image.fromarray(values.reshape(side, side)).save(file, "PNG")
    importer.write(path, file.getvalue())
