from __future__ import annotations

from pathlib import Path

from emotion_assets.core.layout import DataPaths


def test_every_folder_lies_below_the_root() -> None:
    paths = DataPaths(Path("/anywhere"))
    folders = [Path(value) for value in vars(paths).values() if value]

    assert len(folders) >= 10
    assert all(folder.is_relative_to("/anywhere") for folder in folders)
    assert paths.evaluation_report("v") == Path("/anywhere/reports/evaluation/v")


def test_images_are_read_where_they_are() -> None:
    assert DataPaths(Path("/anywhere")).raw_source == "/anywhere/raw"
    assert DataPaths(Path("/copy"), "s3://bucket/root").raw_source == "s3://bucket/root/raw"
