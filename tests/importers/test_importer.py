from __future__ import annotations

from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from emotion_assets.importers.importer import Importer


def test_a_path_is_wanted_once(tmp_path: Path) -> None:
    """Litter is passed over in silence, the rest is counted by its reason."""
    importer = Importer(DataPaths(tmp_path), "delivery", "test")

    path = importer.wants(["train", "happy", "1.JPG"])
    assert path == tmp_path / "raw" / "delivery" / "train" / "happy" / "1.JPG"
    importer.write(path, b"content")

    assert path.read_bytes() == b"content"
    assert not list(path.parent.glob(".*"))
    importer.write(path, b"content")
    assert importer.wants(["Test", "sad", "2.png"]) == tmp_path / "external" / "delivery" / "Test" / "sad" / "2.png"
    for parts in ([".DS_Store"], ["__MACOSX", "1.jpg"], ["happy", "._1.jpg"]):
        assert importer.wants(parts) is None
    assert not importer.left_out
    for parts in ([], ["..", "1.jpg"], ["happy", "x" * 300 + ".jpg"], ["happy", "notes.txt"]):
        assert importer.wants(parts) is None
    assert sum(importer.left_out.values()) == 4
    assert (importer.num_new, importer.num_existing, importer.num_held_out) == (1, 1, 1)


def test_different_images_of_one_name_are_both_kept(tmp_path: Path) -> None:
    """As of two archives that are called alike, or folders that differ in case on a disk that does not."""
    importer = Importer(DataPaths(tmp_path), "archive")

    for content in (b"first", b"second", b"first", b"second"):
        path = importer.wants(["happy", "1.jpg"])
        assert path
        importer.write(path, content)

    folder = tmp_path / "raw" / "archive" / "happy"
    assert {path.read_bytes() for path in folder.iterdir()} == {b"first", b"second"}
    assert (importer.num_new, importer.num_existing) == (2, 2)


@pytest.mark.parametrize("held_out", ["test", "Test ", "./test", "archive/test/", "TEST"])
def test_a_part_is_recognized_however_it_is_typed(tmp_path: Path, held_out: str) -> None:
    importer = Importer(DataPaths(tmp_path), "archive", held_out)

    assert importer.wants(["Test", "happy", "1.jpg"]) == tmp_path / "external" / "archive" / "Test" / "happy" / "1.jpg"
    assert importer.wants(["train", "happy", "1.jpg"]) == tmp_path / "raw" / "archive" / "train" / "happy" / "1.jpg"


def test_holding_out_is_never_silent(tmp_path: Path) -> None:
    """A whole delivery may be held out; a name that nothing has is reported, and so is what is in raw/ already."""
    paths = DataPaths(tmp_path)
    whole, none, again = Importer(paths, "test", "test"), Importer(paths, "a", "valid"), Importer(paths, "a", "test")

    assert whole.wants(["happy", "1.jpg"]) == tmp_path / "external" / "test" / "happy" / "1.jpg"
    path = none.wants(["test", "happy", "1.jpg"])
    assert path == tmp_path / "raw" / "a" / "test" / "happy" / "1.jpg"
    none.write(path, b"x")
    again.wants(["test", "happy", "1.jpg"])
    assert "No folder is called valid, so nothing was held out." in none.report()
    assert any("remove them there" in line for line in again.report())


def test_what_is_held_out_stays_out(tmp_path: Path) -> None:
    """A second import that forgets to hold out, or misspells the part, must not train on the test set."""
    first, second = Importer(DataPaths(tmp_path), "faces", "test"), Importer(DataPaths(tmp_path), "faces")
    path = first.wants(["test", "happy", "1.jpg"])
    assert path
    first.write(path, b"content")

    assert second.wants(["test", "happy", "1.jpg"]) is None
    assert second.left_out == {"held out in external/ by an earlier import": 1}
    assert second.wants(["train", "happy", "1.jpg"])


def test_odd_names_are_ordinary(tmp_path: Path) -> None:
    """Screenshots of macOS have a narrow no-break space; a file and a folder of one name end nothing."""
    importer = Importer(DataPaths(tmp_path), "a")
    for name in ("Screenshot 9.41\u202fAM.png", "\u3000.jpg", "👩‍🦰.jpg", "caf\udce9.jpg"):
        path = importer.wants(["happy", name])
        assert path
        importer.write(path, name.encode("utf-8", "surrogateescape"))
    folder = importer.wants(["happy", "\u3000.jpg", "1.jpg"])
    assert folder
    importer.write(folder, b"x")

    assert importer.num_new == 4
    assert importer.left_out == {"a file whose name is also that of a folder": 1}


def test_an_archive_may_be_called_like_a_class(tmp_path: Path) -> None:
    """Its own name is a class only where no folder inside names one."""
    paths = DataPaths(tmp_path)
    paths.classes.write_text("- mask\n- no mask\n")
    importer = Importer(paths, "mask")

    assert importer.wants(["no mask", "1.jpg"]) == tmp_path / "raw" / "import of mask" / "no mask" / "1.jpg"
    assert importer.wants(["1.jpg"]) == tmp_path / "raw" / "mask" / "1.jpg"
