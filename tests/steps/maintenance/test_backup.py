from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.maintenance.backup import create_backup, main, restore_backup
from emotion_assets.steps.registry.registry import Decision, Registry
from emotion_assets.steps.splits.splits import read_manifest, read_split


@pytest.fixture
def paths(drawn_root: Path, bundle_dir: Path, tmp_path: Path) -> DataPaths:
    """A data root with images, catalogue, splits, a champion, a log and a label."""
    paths = DataPaths(tmp_path / "data")
    shutil.copytree(drawn_root, paths.root)
    shutil.copytree(bundle_dir, paths.models / bundle_dir.name)
    Registry(paths.models).record(Decision(candidate=bundle_dir.name, is_accepted=True, reasons=[]))
    for path in (paths.predictions / "2025-01-01" / "a.jsonl", paths.feedback / "ab" / "abc.json"):
        path.parent.mkdir(parents=True)
        path.write_text("{}\n")
    return paths


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.gz"])
def test_after_wipe_and_restore_everything_is_the_same(paths: DataPaths, tmp_path: Path, name: str) -> None:
    """The same champion, answers, splits and labels; and nothing is decoded again."""
    archive = tmp_path / name
    champion = Registry(paths.models).require_champion().name
    pixels = read_split(paths.splits, "test").pixels
    before = Classifier(paths.models / champion).predict(pixels).probabilities
    fingerprint = read_manifest(paths.splits)["fingerprint"]
    files = {path.relative_to(paths.root) for path in paths.root.rglob("*") if path.is_file()}

    num_files = create_backup(paths, archive)
    shutil.rmtree(paths.root)
    assert restore_backup(archive, paths) == num_files

    restored = {path.relative_to(paths.root) for path in paths.root.rglob("*") if path.is_file()}
    assert {path for path in files ^ restored if not path.name.endswith(".lock")} == set()
    assert Registry(paths.models).require_champion().name == champion
    assert np.array_equal(Classifier(paths.models / champion).predict(pixels).probabilities, before)
    assert read_manifest(paths.splits)["fingerprint"] == fingerprint
    report = ingest_images(paths)
    assert (report.num_decoded, report.num_removed) == (0, 0)


def test_links_and_disks_are_archived_and_filled(paths: DataPaths, tmp_path: Path) -> None:
    """`raw/` is a link to another disk; the new data root is a link to a fresh one, with what a checkout has."""
    archive, disk = tmp_path / "backup.tar", tmp_path / "disk"
    shutil.move(paths.raw, tmp_path / "photos")
    paths.raw.symlink_to(tmp_path / "photos")
    create_backup(paths, archive)
    (disk / "lost+found").mkdir(parents=True)
    (disk / "README.md").write_text("of a checkout")
    target = DataPaths(tmp_path / "linked")
    target.root.symlink_to(disk)

    restore_backup(archive, target)

    assert [path.name for path in target.raw.rglob("*.jpg")] == [
        path.name for path in paths.raw.resolve().rglob("*.jpg")
    ]
    assert list(target.raw.rglob("*.jpg"))
    assert Registry(target.models).champion()
    assert not (disk / ".restore").exists()


def test_a_damaged_archive_restores_nothing(paths: DataPaths, tmp_path: Path) -> None:
    """Half of a data root would be worse than none."""
    archive = tmp_path / "backup.tar.gz"
    create_backup(paths, archive)
    archive.write_bytes(archive.read_bytes()[:5000])
    target = DataPaths(tmp_path / "other")

    with pytest.raises(UnusableDataError, match=r"backup.tar.gz cannot be restored"):
        restore_backup(archive, target)

    assert not list(target.root.iterdir())


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    """An archive from elsewhere may name any path."""
    archive, target = tmp_path / "evil.tar", DataPaths(tmp_path / "data")
    (tmp_path / "file").write_text("x")
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "file", "../outside")

    with pytest.raises(UnusableDataError, match="cannot be restored"):
        restore_backup(archive, target)

    assert not (tmp_path / "outside").exists()


def test_nothing_is_overwritten(paths: DataPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data root with files is not restored to, and an archive is not put into what it archives."""
    archive = tmp_path / "backup.tar"
    create_backup(paths, archive)

    with pytest.raises(UnusableDataError, match="has files already"):
        restore_backup(archive, paths)
    with pytest.raises(UnusableDataError, match="lies in the data root"):
        create_backup(paths, paths.root / "backup.tar")
    with pytest.raises(UnusableDataError, match="no data root"):
        create_backup(DataPaths(tmp_path / "none"), archive)
    assert capsys.readouterr().err == ""


def test_the_command(paths: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As make calls it."""
    archive, target = str(tmp_path / "b.tar"), str(tmp_path / "new")
    for arguments in ([str(paths.root), "create", archive], [target, "restore", archive]):
        monkeypatch.setattr("sys.argv", ["backup", *arguments])
        main()

    with pytest.raises(SystemExit, match="has files already"):
        main()
