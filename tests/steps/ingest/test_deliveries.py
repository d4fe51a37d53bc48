"""Deliveries as people make them: each is read rightly, or refused with the right reason and path."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.decode import DecodedContent
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.ingest.scan import SourceFile, to_int64
from emotion_assets.steps.ingest.store import STORE_NAME, Store

Put = Callable[[str], None]

_rng = np.random.default_rng(5)
FACE = draw_face("happy", _rng)


def ingest(root: Path) -> pd.DataFrame:
    ingest_images(DataPaths(root), num_workers=1)
    return read_catalogue(root / "catalogue")


def different_face() -> bytes:
    """Return the bytes of a face that no other file has; what it shows does not matter."""
    return draw_face("happy", _rng)


TREES: dict[str, tuple[list[str], dict[str, int], dict[str, str]]] = {
    "the class's own folder": (["Happy/1.jpg"], {"happy": 1}, {}),
    "published splits": (
        ["train/happy/1.jpg", "test/sad/2.jpg", "validation/angry/3.jpg"],
        {"happy": 1, "sad": 1, "angry": 1},
        {},
    ),
    "FER2013's own parts": (
        ["PublicTest/Fear/1.jpg", "PrivateTest/Surprise/2.jpg", "Training/Sad/3.jpg"],
        {"fear": 1, "surprise": 1, "sad": 1},
        {},
    ),
    "a folder of images": (["images/train/happy/1.jpg"], {"happy": 1}, {}),
    "a named archive": (["archive (3)/FER-2013/images/test/Happy/1.jpg"], {"happy": 1}, {}),
    "splits below the class": (["happy/train/1.jpg", "happy/test/2.jpg"], {"happy": 2}, {}),
    "numbered classes": (["0_angry/1.jpg", "3-happy/2.jpg", "04 sad/3.jpg"], {"angry": 1, "happy": 1, "sad": 1}, {}),
    "copied folders": (["Happy (1)/1.jpg", "sad - Copy/2.jpg"], {"happy": 1, "sad": 1}, {}),
    "synonyms": (["anger/1.jpg", "joy/2.jpg", "scared/3.jpg"], {"angry": 1, "happy": 1, "fear": 1}, {}),
    "capitals and spaces": (["HAPPY /1.jpg", "Angry_Faces/2.jpg"], {"happy": 1, "angry": 1}, {}),
    "misspelled": (["suprise/1.jpg"], {"surprise": 1}, {}),
    "the same class twice": (["happy/Happy/1.jpg"], {"happy": 1}, {}),
    "two classes on the way": (["Happy/Sad/1.jpg"], {}, {"Happy/Sad/1.jpg": "contradictory_folders"}),
    "another emotion below a class": (["Happy/disgust/1.jpg"], {}, {"Happy/disgust/1.jpg": "contradictory_folders"}),
    "a class below another emotion": (["neutral/happy/1.jpg"], {}, {"neutral/happy/1.jpg": "contradictory_folders"}),
    "other emotions": (
        ["train/neutral/1.jpg", "train/neutral/2.jpg", "train/happy/3.jpg"],
        {"happy": 1},
        {"train/neutral/1.jpg": "other_class"},
    ),
    "a close name": (["hapy/1.jpg"], {}, {"hapy/1.jpg": "unknown_folder"}),
    "a container that resembles a class": (
        ["fer/train/happy/1.jpg", "FER+/sad/2.jpg", "Angela/happy/3.jpg", "emotions/angry/4.jpg"],
        {"happy": 2, "sad": 1, "angry": 1},
        {},
    ),
    "numbers only": (["0/1.jpg", "1/2.jpg"], {}, {"0/1.jpg": "unlabelled_file", "1/2.jpg": "unlabelled_file"}),
    "no folder": (["1.jpg", "2.jpg"], {}, {"1.jpg": "unlabelled_file"}),
    "a split without classes": (["test/1.jpg", "train/sad/2.jpg"], {"sad": 1}, {"test/1.jpg": "unlabelled_file"}),
    "junk": (
        [
            "happy/1.jpg",
            "happy/._1.jpg",
            ".DS_Store",
            "__MACOSX/happy/1.jpg",
            "happy/Thumbs.db",
            "happy/desktop.ini",
            "happy/@eaDir/1.jpg",
            ".ipynb_checkpoints/happy/1.jpg",
            "$RECYCLE.BIN/1.jpg",
        ],
        {"happy": 1},
        {},
    ),
    "archives and tables": (
        ["data.zip", "happy/more.tar.gz", "fer2013.csv"],
        {},
        {"data.zip": "packed_archive", "happy/more.tar.gz": "packed_archive", "fer2013.csv": "packed_archive"},
    ),
    "fifty folders deep": (["/".join(["d"] * 50) + "/happy/1.jpg"], {"happy": 1}, {}),
    "umlauts, spaces, quotes, percent": (["träin 'x' 100%/happy/ä b?#.jpg"], {"happy": 1}, {}),
}


@pytest.mark.parametrize("name", TREES)
def test_trees(tmp_path: Path, name: str) -> None:
    """The class is the nearest folder's that names one; what has none is listed with its reason."""
    files, expected, reasons = TREES[name]
    for file in files:
        path = tmp_path / "raw" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(different_face())

    table = ingest(tmp_path)

    accepted, rejected = table[table["is_accepted"]], table[~table["is_accepted"]]
    assert accepted["label"].value_counts().to_dict() == expected
    assert dict(zip(rejected["path"], rejected["reason_code"], strict=True)) == reasons
    assert all(len(reason) > 40 for reason in rejected["reason"])


def test_reasons_say_what_would_help(tmp_path: Path) -> None:
    """A close name, another emotion and a contradiction each have their own remedy."""
    for folder in ("hapy", "disgust", "Happy/Sad", "train"):
        path = tmp_path / "raw" / folder / "1.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(different_face())

    reasons = ingest(tmp_path).set_index("path")["reason"]

    assert "hapy resembles happy" in reasons["hapy/1.jpg"]
    assert "To train it, list it in classes.yaml" in reasons["disgust/1.jpg"]
    assert "Sad is inside Happy" in reasons["Happy/Sad/1.jpg"]
    assert "named after their class" in reasons["train/1.jpg"]


def _deep(values: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def _deep_color(white: int) -> bytes:
    """Return a PNG with 16 bits per channel, which Pillow reads but does not write."""
    rows = np.repeat((_GRADIENT * white).astype(">u2")[:, :, None], 3, axis=2)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


_GRADIENT = np.tile(np.linspace(0, 1, 64), (64, 1))
CONTENTS: dict[str, tuple[bytes, str | None, str]] = {
    "12-bit values in a 16-bit PNG": (_deep(np.uint16(_GRADIENT * 4095), "PNG"), None, ""),
    "8-bit values in a 16-bit TIFF": (_deep(np.uint16(_GRADIENT * 255), "TIFF"), None, ""),
    "full 16 bits": (_deep(np.uint16(_GRADIENT * 65535), "PNG"), None, ""),
    "32-bit integers up to 255": (_deep(np.int32(_GRADIENT * 255), "TIFF"), None, ""),
    "32-bit integers up to 4095": (_deep(np.int32(_GRADIENT * 4095), "TIFF"), None, ""),
    "floats up to 1": (_deep(np.float32(_GRADIENT), "TIFF"), None, ""),
    "floats up to 255": (_deep(np.float32(_GRADIENT * 255), "TIFF"), None, ""),
    "floats beyond 65535": (_deep(np.float32(_GRADIENT * 1e6), "TIFF"), "unreadable_image", ""),
    "cut with an end marker": (FACE[: len(FACE) * 2 // 3] + b"\xff\xd9", None, "damaged"),
    "zeros inside": (FACE[:1500] + bytes(300) + FACE[1800:], None, "damaged"),
    "converted line ends": (FACE.replace(b"\n", b"\r\n"), None, "damaged"),
    "bytes before the end marker": (FACE[:-2] + bytes(4) + FACE[-2:], None, ""),
    "12-bit values in 16-bit color": (_deep_color(4095), None, "nearly black"),
    "full 16 bits in color": (_deep_color(65535), None, ""),
    "cut": (FACE[: len(FACE) // 2], "unreadable_image", ""),
    "data behind the end": (FACE + b"more" * 100, None, ""),
    "empty": (b"", "empty_image", ""),
    "a web page": (b"<!doctype html><title>404</title>", "unsupported_format", ""),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents(tmp_path: Path, name: str) -> None:
    """Deep images have one brightness rule; patched JPEG data are accepted with a warning, the rest is refused."""
    content, code, warning = CONTENTS[name]
    path = tmp_path / "raw" / "Happy" / "x.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    report = ingest_images(DataPaths(tmp_path), num_workers=1)

    (row,) = read_catalogue(tmp_path / "catalogue").to_dict("records")
    assert (row["reason_code"] if code else None, row["is_accepted"]) == (code, code is None)
    assert (warning in row["warning"]) if warning else not isinstance(row["warning"], str)
    assert report.summary().values["num_warnings"] == bool(warning)
    if "values" in name and not warning:
        with Store(tmp_path / "catalogue" / STORE_NAME) as store:
            pixels = store.read_pixels([row["content_hash"]])[0]
        assert pixels.max() > 250
        assert pixels.min() < 5


@pytest.mark.parametrize("seconds", [-(10**10), 0, 2**33, 10**10, 9_300_000_000])
def test_dates_do_not_matter(tmp_path: Path, seconds: int) -> None:
    """A clock that was wrong, up to beyond 2262, neither ends a run nor makes a file new again."""
    path = tmp_path / "raw" / "Happy" / "x.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(FACE)
    os.utime(path, (seconds, seconds))

    first, second = (ingest_images(DataPaths(tmp_path), num_workers=1) for _ in range(2))

    assert (first.num_new, second.num_new, second.num_cached) == (1, 0, 1)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, -(2**62), 10**19])
def test_numbers_beyond_63_bits_are_folded(tmp_path: Path, number: int) -> None:
    """Some network file systems use all 64 bits for inodes, and SQLite takes 63 and a sign."""
    with Store(tmp_path / STORE_NAME) as store:
        file = SourceFile(b"Happy/1.jpg", "happy", 1, to_int64(number), to_int64(number))
        store.add([(file, DecodedContent("0", rejection_code="empty_image", rejection="empty"))], {})

        assert store.match_known([file]) == []
    assert (to_int64(number) - number) % 2**64 == 0


def test_other_classes_are_no_rejections(tmp_path: Path) -> None:
    """A delivery of seven emotions is no reason to warn where five are wanted; the number is shown all the same."""
    for number in range(10):
        for emotion in ("Happy", "Neutral"):
            path = tmp_path / "raw" / "train" / emotion / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(different_face())

    values = ingest_images(DataPaths(tmp_path), num_workers=1).summary().values

    assert (values["num_rejected"], values["rejected_fraction"], values["num_other_class"]) == (0, 0, 10)


def test_classes_may_change(tmp_path: Path) -> None:
    """Listing a class turns its files into images at the next run, and removing it turns them back."""
    for emotion in ("Happy", "Neutral"):
        path = tmp_path / "raw" / emotion / "1.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(different_face())
    counts = []
    for text in (None, "- happy\n- neutral\n", "- happy\n- sad\n"):
        if text:
            (tmp_path / "classes.yaml").write_text(text)
        table = ingest(tmp_path)
        counts.append(Counter(table.loc[table["is_accepted"], "label"]))

    assert counts == [{"happy": 1}, {"happy": 1, "neutral": 1}, {"happy": 1}]
    shutil.rmtree(tmp_path / "raw" / "Neutral")
    assert len(ingest(tmp_path)) == 1
