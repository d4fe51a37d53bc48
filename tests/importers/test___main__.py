"""The command `make import` runs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emotion_assets.importers", *arguments],
        env={"EMOTION_DATA_DIR": str(root), "HOME": str(root), "PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_says_what_an_ingest_will_find(tmp_path: Path, face: bytes) -> None:
    """Classes with their numbers, and folders that name none with the remedy."""
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name in ("train/happy/1.jpg", "train/happy/2.jpg", "test/neutral/3.jpg", "train/neutral/3.jpg"):
            archive.writestr(name, face)

    result = run(tmp_path, str(tmp_path / "faces.zip"))

    assert result.returncode == 0, result.stderr
    assert "4 images are new" in result.stdout
    assert "raw/ has happy 2." in result.stdout
    assert (
        "2 not used, such as raw/faces/test/neutral/3.jpg: The folder neutral is none of the classes" in result.stdout
    )


def test_raw_is_not_imported_into_itself(tmp_path: Path, face: bytes) -> None:
    """It would double every image."""
    image = tmp_path / "raw" / "happy" / "1.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(face)

    for folder in (tmp_path, tmp_path / "raw", tmp_path / "raw" / "happy"):
        result = run(tmp_path, str(folder), EMOTION_DATA_DIR=str(tmp_path))
        assert "one is in the other" in result.stderr
    assert list(tmp_path.rglob("*.jpg")) == [image]


def test_a_tilde_is_the_home_folder(tmp_path: Path) -> None:
    """Zsh does not expand it in `make import FILE=~/faces.zip`."""
    assert f"There is no file {tmp_path}/missing.zip" in run(tmp_path, "~/missing.zip").stderr


def test_object_storage_is_refused(tmp_path: Path) -> None:
    """Images would stay in the local copy."""
    result = run(tmp_path, str(tmp_path), EMOTION_DATA_DIR="s3://bucket/root")

    assert result.returncode == 1
    assert "s3://bucket/root/raw is in object storage. Import into a folder" in result.stderr
    assert not list(tmp_path.rglob("raw"))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing.zip"], 1, "There is no file missing.zip"),
        ([], 2, "name either a file (FILE=faces.zip) or --kaggle"),
        (["--kaggle"], 1, "could not be downloaded"),
    ],
)
def test_a_failure_is_one_message(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    proxy = {"KAGGLE_API_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}
    proxy["https_proxy"] = proxy["http_proxy"] = "http://127.0.0.1:9"

    result = run(tmp_path, *arguments, **proxy)

    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
