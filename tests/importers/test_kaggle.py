from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.importers.__main__ import KAGGLE_DATASET, import_faces
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import read_catalogue

SPELLINGS = {"angry": "Angry", "fear": "fear", "happy": "Happy", "sad": "Sad", "surprise": "Suprise"}
LAYOUTS: dict[str, Callable[[str, int], str]] = {
    "flat": lambda folder, number: f"{folder}/{number}.jpg",
    "one folder above": lambda folder, number: f"Data/{folder}/{number}.jpg",
    "split, numbered anew": lambda folder, number: f"data/{('train', 'test')[number % 2]}/{folder}/{number // 2}.jpg",
    "with the archive's name": lambda folder, number: f"human-face-emotions/images/{folder}/{folder} ({number}).jpg",
    "numbered classes": lambda folder, number: (
        f"dataset/{list(SPELLINGS.values()).index(folder)}_{folder}/{number}.jpg"
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_data_set_ends_in_a_catalogue(
    tmp_path: Path, faces: list[tuple[str, bytes]], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is laid out, every image has its class; a second download adds nothing."""
    source, paths = tmp_path / "cache", DataPaths(tmp_path / "data")
    for number, (emotion, content) in enumerate(faces):
        path = source / LAYOUTS[layout](SPELLINGS[emotion], number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    asked: list[str] = []

    def fetch(name: str) -> str:
        asked.append(name)
        return str(source)

    monkeypatch.setattr("kagglehub.dataset_download", fetch)
    for num_new in (15, 0):
        assert import_faces(paths, None, None)[0].startswith(f"{num_new} images are new")

    assert asked == [KAGGLE_DATASET] * 2
    ingest_images(paths, num_workers=1)
    assert read_catalogue(paths.catalogue)["label"].value_counts().to_dict() == dict.fromkeys(SPELLINGS, 3)


def test_download_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the failure and the alternatives."""

    def fetch(_: str) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("kagglehub.dataset_download", fetch)
    with pytest.raises(UnusableDataError, match=r"ConnectionError.*make import FILE=….*make demo"):
        import_faces(DataPaths(tmp_path), None, None)
