from __future__ import annotations

from pathlib import Path

from emotion_assets.core.layout import DataPaths
from emotion_assets.importers.importer import Importer


def test_a_path_is_wanted_once(tmp_path: Path) -> None:
    """An existing file counts as there, litter is passed over in silence, the rest is counted by its reason."""
    importer = Importer(DataPaths(tmp_path), "delivery", "test")

    path = importer.wants(["train", "happy", "1.JPG"])
    assert path == tmp_path / "raw" / "delivery" / "train" / "happy" / "1.JPG"
    importer.write(path, b"content")

    assert path.read_bytes() == b"content"
    assert not list(path.parent.glob(".*"))
    assert importer.wants(["train", "happy", "1.JPG"]) is None
    assert importer.wants(["Test", "sad", "2.png"]) == tmp_path / "external" / "delivery" / "Test" / "sad" / "2.png"
    for parts in ([".DS_Store"], ["__MACOSX", "1.jpg"], ["happy", "._1.jpg"]):
        assert importer.wants(parts) is None
    assert not importer.left_out
    for parts in ([], ["..", "1.jpg"], ["happy", "x" * 300 + ".jpg"], ["happy", "notes.txt"]):
        assert importer.wants(parts) is None
    assert sum(importer.left_out.values()) == 4
    assert (importer.num_new, importer.num_existing, importer.num_held_out) == (1, 1, 1)
