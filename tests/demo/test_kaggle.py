from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.kaggle import DATASET, download_faces
from emotion_assets.steps.ingest.catalogue import ingest_images


@pytest.fixture
def dataset_dir(tmp_path: Path, faces: list[tuple[str, bytes]]) -> Path:
    """A folder laid out as the data set is, with spellings seen in the wild."""
    spelling = {"angry": "Angry", "fear": "fear", "happy": "Happy", "sad": "Sad", "surprise": "Suprise"}
    for number, (emotion, content) in enumerate(faces):
        path = tmp_path / "cache" / "Data" / spelling[emotion] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "cache"


def test_download_puts_images_where_the_catalogue_finds_them(dataset_dir: Path, tmp_path: Path) -> None:
    """Every image arrives under its emotion; a second call copies nothing."""
    asked: list[str] = []

    def fetch(name: str) -> str:
        asked.append(name)
        return str(dataset_dir)

    assert download_faces(tmp_path / "raw", fetch) == 15
    assert download_faces(tmp_path / "raw", fetch) == 0
    assert asked == [DATASET] * 2
    assert ingest_images(DataPaths(tmp_path)).num_files == 15


def test_download_keeps_images_of_one_name_apart(dataset_dir: Path, tmp_path: Path, face: bytes) -> None:
    """A data set that is split already numbers each split from one."""
    for number, part in enumerate(("train", "test")):
        path = dataset_dir / part / "Happy" / "0.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(face + bytes(number))

    assert download_faces(tmp_path / "raw", lambda _: str(dataset_dir)) == 17
    assert len(list((tmp_path / "raw" / "Happy").rglob("0.jpg"))) == 2


def test_download_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    """The message names the failure and the alternatives."""

    def fetch(_: str) -> str:
        raise ConnectionError("no route to host")

    with pytest.raises(UnusableDataError, match=r"ConnectionError.*make demo"):
        download_faces(tmp_path / "raw", fetch)


def test_download_of_something_else_is_rejected(tmp_path: Path) -> None:
    """A data set without an emotion's folder is not copied."""
    (tmp_path / "cache" / "Neutral").mkdir(parents=True)

    with pytest.raises(UnusableDataError, match="named after an emotion"):
        download_faces(tmp_path / "raw", lambda _: str(tmp_path / "cache"))


def test_the_command_fails_with_a_message(tmp_path: Path) -> None:
    """Without account and network the command ends with status 1 and no traceback."""
    environment = {"HOME": str(tmp_path), "PATH": "", "KAGGLE_API_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}
    environment["https_proxy"] = environment["http_proxy"] = "http://127.0.0.1:9"

    result = subprocess.run(
        [sys.executable, "-m", "emotion_assets.demo.kaggle", str(tmp_path / "raw")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert "could not be downloaded" in result.stderr
    assert "Traceback" not in result.stderr
