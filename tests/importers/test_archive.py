from __future__ import annotations

import io
import os
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.importers.__main__ import import_faces

TREE = ("train/happy/1.jpg", "train/sad/1.jpg", "test/happy/1.jpg", "__MACOSX/happy/._1.jpg", "README.txt")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def make_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def make_zip_of_bytes(path: Path, names: list[bytes], content: bytes) -> Path:
    """Write names in any encoding, without the flag for UTF-8."""
    placeholders = [f"{number:x>{len(name)}}" for number, name in enumerate(names)]
    archive = make_zip(path, dict.fromkeys(placeholders, content)).read_bytes()
    for placeholder, name in zip(placeholders, names, strict=True):
        archive = archive.replace(placeholder.encode(), name)
    path.write_bytes(archive)
    return path


def make_tar(path: Path, entries: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "folder"])
def test_a_delivery_keeps_its_tree(tmp_path: Path, face: bytes, kind: str) -> None:
    """Images arrive below `raw/` with their folders; a second import adds nothing."""
    paths, entries = DataPaths(tmp_path / "data"), dict.fromkeys(TREE, face)
    source = tmp_path / f"faces.{kind}"
    if kind == "folder":
        for name in TREE:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(face)
    else:
        (make_zip if kind == "zip" else make_tar)(source, entries)

    first, second = (import_faces(paths, source, None) for _ in range(2))

    assert files(paths.raw) == {"faces/train/happy/1.jpg", "faces/train/sad/1.jpg", "faces/test/happy/1.jpg"}
    assert first[0] == "3 images are new, 0 were there before."
    assert second[0] == "0 images are new, 3 were there before."
    assert "1 entries were left out: a name that does not end in" in first[1]


def test_a_table_of_subjects_is_not_lost_in_silence(tmp_path: Path, face: bytes) -> None:
    """Its paths may not fit the folder of the delivery."""
    source = make_zip(tmp_path / "faces.zip", {"happy/1.jpg": face, "subjects.csv": b"path,subject\nhappy,anna\n"})

    lines = import_faces(DataPaths(tmp_path / "data"), source, None)

    assert "1 entries were left out: a table of subjects: put it into the data root" in lines[1]


def test_a_test_part_is_held_out(tmp_path: Path, face: bytes) -> None:
    """It goes to `external/`, which is never trained on and has its own line in the report."""
    paths = DataPaths(tmp_path / "data")
    source = make_zip(tmp_path / "faces.zip", dict.fromkeys(TREE, face))

    lines = import_faces(paths, source, "TEST")

    assert files(paths.external) == {"faces/test/happy/1.jpg"}
    assert files(paths.raw) == {"faces/train/happy/1.jpg", "faces/train/sad/1.jpg"}
    assert f"1 of them are held out in {paths.external / 'faces'}." in lines


def test_the_folder_of_a_held_out_part_is_named_as_it_is(tmp_path: Path, face: bytes) -> None:
    """An archive that is called like a class gets another folder."""
    paths = DataPaths(tmp_path / "data")

    lines = import_faces(paths, make_zip(tmp_path / "happy.zip", dict.fromkeys(TREE, face)), "test")

    assert f"1 of them are held out in {paths.external / 'import of happy'}." in lines


def test_a_part_is_held_out_in_either_form_of_unicode(tmp_path: Path, face: bytes) -> None:
    """macOS writes folder names in pieces."""
    paths = DataPaths(tmp_path / "data")
    name = unicodedata.normalize("NFD", "Prüfung")

    import_faces(paths, make_zip(tmp_path / "faces.zip", {f"{name}/happy/1.jpg": face}), "Prüfung")

    assert files(paths.external) == {f"faces/{name}/happy/1.jpg"}
    assert files(paths.raw) == set()


def test_a_file_that_may_not_be_read_is_left_out(tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends nothing; root, who runs these tests, may read all of them."""
    paths = DataPaths(tmp_path / "data")
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "faces" / "happy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / "happy" / name).write_bytes(face)
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "1.jpg")

    lines = import_faces(paths, tmp_path / "faces", None)

    assert files(paths.raw) == {"faces/happy/2.jpg"}
    assert "1 entries were left out: a file that you may not read." in lines


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["../../happy/out.jpg", "/happy/out.jpg", "happy/..\\..\\out.jpg", "happy/a\x07.jpg"])
def test_nothing_leaves_the_folder(tmp_path: Path, face: bytes, make: object, name: str) -> None:
    """A path that leads out of the folder is left out, and the rest arrives."""
    paths = DataPaths(tmp_path / "a" / "b" / "data")
    source = make(tmp_path / "x.archive", {name: face, "happy/1.jpg": face})  # type: ignore[operator]

    lines = import_faces(paths, source, None)

    assert [path.name for path in tmp_path.rglob("*.jpg")] == ["1.jpg"]
    assert any("leads out of the folder" in line for line in lines)


def test_links_are_left_out(tmp_path: Path, face: bytes) -> None:
    """A link could point at any file of this machine."""
    (tmp_path / "secret.jpg").write_bytes(face)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"happy/{int(kind)}.jpg")
            info.type, info.linkname = kind, str(tmp_path / "secret.jpg")
            archive.addfile(info)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        entry = zipfile.ZipInfo("happy/link.jpg")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, str(tmp_path / "secret.jpg"))
    paths = DataPaths(tmp_path / "data")

    tar_lines, zip_lines = (import_faces(paths, tmp_path / name, None) for name in ("x.tar", "x.zip"))

    assert files(paths.raw) == set()
    assert "3 entries were left out: a link or a device." in tar_lines
    assert "1 entries were left out: a link." in zip_lines


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A hundred kilobytes do not become gigabytes."""
    entries = {f"happy/{number}.bmp": bytes(9 * 2**20) for number in range(20)}
    source = make_zip(tmp_path / "bomb.zip", entries)
    paths = DataPaths(tmp_path / "data")

    with pytest.raises(UnusableDataError, match="far more than images would"):
        import_faces(paths, source, None)

    assert sum(path.stat().st_size for path in paths.raw.rglob("*.bmp")) < 200 * 2**20


def test_a_large_file_is_left_out(tmp_path: Path, face: bytes) -> None:
    source = make_zip(tmp_path / "x.zip", {"happy/1.jpg": face, "happy/2.bmp": bytes(11 * 2**20)})

    lines = import_faces(DataPaths(tmp_path / "data"), source, None)

    assert "1 entries were left out: more than 10,485,760 bytes." in lines


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"PK\x03\x04 cut off", "not a zip or tar archive"),
        ("x.rar", b"Rar!\x1a\x07", "not a zip or tar archive"),
        ("x.tar.gz", b"\x1f\x8b\x08\x00 cut off", "not a zip or tar archive"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UnusableDataError, match=message):
        import_faces(DataPaths(tmp_path / "data"), tmp_path / name, None)


def test_a_damaged_archive_keeps_what_it_gave(tmp_path: Path, face: bytes) -> None:
    """The message says how much arrived, and what to do."""
    content = bytearray(
        make_zip(tmp_path / "x.zip", {f"happy/{i}.jpg": face + bytes([i]) for i in range(3)}).read_bytes()
    )
    start = content.find(b"happy/2.jpg") + 200
    content[start : start + 50] = bytes(50)
    (tmp_path / "x.zip").write_bytes(content)
    paths = DataPaths(tmp_path / "data")

    with pytest.raises(UnusableDataError, match=r"damaged .*2 images were unpacked before"):
        import_faces(paths, tmp_path / "x.zip", None)

    assert files(paths.raw) == {"x/happy/0.jpg", "x/happy/1.jpg"}


def test_a_full_disk_is_named(tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_zip(tmp_path / "x.zip", {"happy/1.jpg": face})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UnusableDataError, match=r"happy/1.jpg cannot be written \(No space left on device\)"):
        import_faces(DataPaths(tmp_path / "data"), source, None)


def test_a_bad_table_and_junk_end_nothing(tmp_path: Path, face: bytes) -> None:
    """A zip made on macOS has an unreadable shadow of each file."""
    entries = {
        "__MACOSX/._fer2013.csv": b"\x00\x05\x16\x07\xff",
        "notes.csv": "Gefühl;Wert\n".encode("latin-1"),
        "happy/1.jpg": face,
    }
    paths = DataPaths(tmp_path / "data")

    lines = import_faces(paths, make_zip(tmp_path / "x.zip", entries), None)

    assert files(paths.raw) == {"x/happy/1.jpg"}
    assert "1 entries were left out: a table that is damaged or not UTF-8 text." in lines


def test_utf8_names_without_a_flag(tmp_path: Path, face: bytes) -> None:
    """Many programs write them; names in the old encoding are read as such."""
    paths = DataPaths(tmp_path / "data")
    for number, name in enumerate(("Überrascht/ä.jpg".encode(), "Über/ä.jpg".encode("cp437"))):
        import_faces(paths, make_zip_of_bytes(tmp_path / f"{number}.zip", [name], face), None)

    assert files(paths.raw) == {"0/Überrascht/ä.jpg", "1/Über/ä.jpg"}


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("gb18030", ("愤怒", "高兴")),
        ("big5", ("憤怒", "開心")),
        ("cp932", ("怒り", "表情なし")),  # 表 ends in the byte of a backslash
        ("cp949", ("분노", "행복")),
        ("cp1256", ("غاضب", "سعيد")),
        ("cp1252", ("Überrascht", "Fröhlich")),
    ],
)
def test_names_of_another_country(tmp_path: Path, face: bytes, encoding: str, classes: tuple[str, str]) -> None:
    """Windows writes zip archives in the country's encoding; the folders of the classes tell which."""
    paths = DataPaths(tmp_path / "data")
    paths.root.mkdir()
    paths.classes.write_text("".join(f"- {name}\n" for name in classes), encoding="utf-8")
    names = [f"{name}/{number}.jpg" for number, name in enumerate(classes)]
    source = make_zip_of_bytes(tmp_path / "faces.zip", [name.encode(encoding) for name in names], face)

    import_faces(paths, source, None)

    assert files(paths.raw) == {f"faces/{name}" for name in names}
