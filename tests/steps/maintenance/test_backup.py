from __future__ import annotations

import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import locked
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
    with pytest.raises(UnusableDataError, match="Name a file in it"):
        create_backup(paths, tmp_path)
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


@pytest.fixture
def small(tmp_path: Path) -> DataPaths:
    """A data root with a few files, one of them at the top."""
    paths = DataPaths(tmp_path / "data")
    for name in ("raw/Happy/1.jpg", "models/champion.json", "splits/ledger.csv", "catalogue/images.sqlite"):
        (paths.root / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.root / name).write_text(name)
    paths.classes.write_text("- happy\n- sad\n")
    return paths


@pytest.mark.parametrize("lock", ["models/.training.lock", "models/.registry.lock", "splits/.lock", "catalogue/.lock"])
def test_a_running_step_is_waited_for(small: DataPaths, tmp_path: Path, lock: str) -> None:
    """Half of what it writes would be archived."""
    archive = tmp_path / "backup.tar"
    with ThreadPoolExecutor(1) as pool:
        with locked(small.root / lock):
            waiting = pool.submit(create_backup, small, archive)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        assert waiting.result(20) == 5


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return sorted(tar.getnames())


def test_files_of_the_root_are_archived_and_temporary_ones_are_not(small: DataPaths, tmp_path: Path) -> None:
    """`classes.yaml` belongs to the data; what a killed step left does not."""
    (small.splits / ".pixels.npy.1.tmp").write_text("half")

    create_backup(small, tmp_path / "backup.tar")

    assert names(tmp_path / "backup.tar") == [
        "catalogue/images.sqlite",
        "classes.yaml",
        "models/champion.json",
        "raw/Happy/1.jpg",
        "splits/ledger.csv",
    ]


def test_a_name_without_tar_is_compressed(small: DataPaths, tmp_path: Path) -> None:
    for name in ("a.tar", "a.tar.gz", "a.tgz"):
        create_backup(small, tmp_path / name)

    assert [(tmp_path / name).read_bytes()[:2] == b"\x1f\x8b" for name in ("a.tar", "a.tar.gz", "a.tgz")] == [
        False,
        True,
        True,
    ]


def test_a_file_that_vanishes_is_left_out(small: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service removes old images whenever it likes."""
    real = tarfile.TarFile.add

    def add(tar: tarfile.TarFile, path: Path, *rest: object, **options: object) -> None:
        if path.name == "1.jpg":
            path.unlink()
        real(tar, path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tarfile.TarFile, "add", add)

    assert create_backup(small, tmp_path / "backup.tar") == 4 == len(names(tmp_path / "backup.tar"))


def test_a_linked_data_root_is_no_place_for_its_archive(small: DataPaths, tmp_path: Path) -> None:
    link = DataPaths(tmp_path / "link")
    link.root.symlink_to(small.root)

    for root, archive in ((link, small.root / "backup.tar"), (small, link.root / "backup.tar")):
        with pytest.raises(UnusableDataError, match="lies in the data root"):
            create_backup(root, archive)


def test_a_killed_restore_can_be_repeated(small: DataPaths, tmp_path: Path) -> None:
    """What it left is no part of the data root."""
    create_backup(small, tmp_path / "backup.tar")
    target = DataPaths(tmp_path / "new")
    (target.root / ".restore" / "raw").mkdir(parents=True)
    (target.root / ".restore" / "half.jpg").write_text("half")

    restore_backup(tmp_path / "backup.tar", target)

    assert not (target.root / "half.jpg").exists()
    assert (target.raw / "Happy" / "1.jpg").exists()


def test_the_models_come_last(small: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before leaves no champion, which a service would serve."""
    create_backup(small, tmp_path / "backup.tar")
    moved: list[str] = []
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: moved.append(path.name) or real(path, target))

    restore_backup(tmp_path / "backup.tar", DataPaths(tmp_path / "new"))

    assert moved[-1] == "models"
    assert len(moved) == 5


def test_a_missing_archive_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UnusableDataError, match="cannot be restored"):
        restore_backup(tmp_path / "none.tar", DataPaths(tmp_path / "new"))


def test_a_home_folder_is_expanded(small: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zsh leaves `FILE=~/backup.tar` to the command."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr("sys.argv", ["backup", str(small.root), "create", "~/backup.tar"])

    main()

    assert (tmp_path / "home" / "backup.tar").exists()


def test_only_the_owner_reads_an_archive(small: DataPaths, tmp_path: Path) -> None:
    """It has faces, and the key that signs predictions."""
    create_backup(small, tmp_path / "backup.tar")

    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600


def test_a_linked_folder_is_no_place_for_the_archive(small: DataPaths, tmp_path: Path) -> None:
    """Each archive would contain the one before."""
    (tmp_path / "disk").mkdir()
    (small.root / "external").symlink_to(tmp_path / "disk")

    with pytest.raises(UnusableDataError, match="lies in the data root"):
        create_backup(small, tmp_path / "disk" / "backup.tar")
