from __future__ import annotations

import io
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import file_sha256
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.splits.make import make_splits
from emotion_assets.steps.splits.splits import read_assignments, read_split, write_splits


def test_missing_or_damaged_assignments_say_what_to_do(tmp_path: Path) -> None:
    """The remedy is to materialize the splits."""
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits first"):
        read_assignments(tmp_path)
    (tmp_path / "assignments.parquet").write_bytes(b"torn")
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits again"):
        read_assignments(tmp_path)


def test_damaged_arrays_are_rejected_and_rewritten(root: Path) -> None:
    """A torn or missing file is noticed when it is read, and written again by the next run."""
    path = root / "splits" / "val" / "pixels.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits again"):
        read_split(root / "splits", "val")
    path.unlink()
    with pytest.raises(UnusableDataError, match="is missing"):
        read_split(root / "splits", "val")

    make_splits(DataPaths(root))

    assert path.read_bytes() == whole


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


@pytest.mark.parametrize("kind", ["a bare pickle", "an array of objects"])
def test_a_pickle_with_the_right_hash_runs_nothing(root: Path, tmp_path: Path, kind: str) -> None:
    """Only the format decides: whoever alters an array can alter the manifest, too."""
    proof, buffer = tmp_path / "proof", io.BytesIO()
    command = Command(f"touch {proof}")
    if kind == "a bare pickle":
        pickle.dump(command, buffer)
    else:
        np.save(buffer, np.array([command], dtype=object), allow_pickle=True)
    path, manifest_path = root / "splits" / "val" / "pixels.npy", root / "splits" / "manifest.json"
    path.write_bytes(buffer.getvalue())
    manifest = json.loads(manifest_path.read_text())
    manifest["files"]["val/pixels.npy"] = file_sha256(path)
    manifest_path.write_text(json.dumps(manifest))

    with pytest.raises(UnusableDataError, match="is not an array"):
        read_split(root / "splits", "val")

    assert not proof.exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": 1', '{"schema_version": 2, "emotions": []}'])
def test_a_damaged_manifest_is_rejected_and_rewritten(root: Path, content: str) -> None:
    """Everything in it can be written again."""
    path = root / "splits" / "manifest.json"
    whole = path.read_text()
    path.write_text(content)
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits again"):
        read_split(root / "splits", "val")

    make_splits(DataPaths(root))

    assert path.read_text() == whole


def test_splits_of_another_image_size_are_rejected(root: Path) -> None:
    """They would only fail after the training."""
    path = root / "splits" / "manifest.json"
    path.write_text(path.read_text().replace('"image_size_px": 64', '"image_size_px": 48'))

    with pytest.raises(UnusableDataError, match="another schema or image size"):
        read_split(root / "splits", "val")


def test_pixels_stay_on_disk_until_they_are_used(drawn_root: Path, tmp_path: Path) -> None:
    """A split may be larger than memory; an empty one can be read, too; and a reader cannot change the file."""
    split = read_split(drawn_root / "splits", "train")
    assert isinstance(split.pixels.base, np.memmap)

    none = replace(split, pixels=split.pixels[:0], class_indices=split.class_indices[:0], content_hashes=())
    write_splits(tmp_path, "x", {"train": split, "val": none})
    assert np.array_equal(read_split(tmp_path, "train").pixels, split.pixels)
    read_split(tmp_path, "train").pixels[:] = 0
    assert read_split(tmp_path, "train").pixels.any()
    assert read_split(tmp_path, "val").pixels.shape == (0, 64, 64)
