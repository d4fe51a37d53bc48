from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.core.errors import ChangedElsewhereError, InvalidSettingError
from emotion_assets.core.remote import open_store
from emotion_assets.resources import PipelineSettings, code_version, git_commit, uses_data
from emotion_assets.steps.feedback.labels import CollectedLabels, collect_labels


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EMOTION_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    settings = PipelineSettings.load()

    assert settings.paths.root == tmp_path / "data"
    assert settings.load_run_config() == {}
    assert settings.link(settings.paths.drift_reports / "x.html") == "http://localhost:3002/drift/x.html"


@pytest.mark.parametrize("text", ["1m", "-1", "nan", "inf"])
def test_invalid_settings_are_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The definitions read them on loading, so the message is all that people see."""
    monkeypatch.setenv("EMOTION_QUIET_SECONDS", text)

    with pytest.raises(InvalidSettingError, match=f"EMOTION_QUIET_SECONDS is '{text}'"):
        PipelineSettings.load()


def test_alert_addresses_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_ALERT_URLS", "json://user:hush@host/  slack://hush")
    settings = PipelineSettings.load()

    assert [url.get_secret_value() for url in settings.alert_urls] == ["json://user:hush@host/", "slack://hush"]
    assert "hush" not in repr(settings)


def test_run_config_of_sensors(tmp_path: Path) -> None:
    """A file that cannot be read, or is not a mapping, is named; nothing is requested then."""
    path = tmp_path / "run.yaml"
    settings = PipelineSettings(run_config=path)
    with pytest.raises(dg.Failure, match="cannot be read"):
        settings.load_run_config()
    path.write_text("7")
    with pytest.raises(dg.Failure, match="not a mapping"):
        settings.load_run_config()
    path.write_text("ops: {trained_cnn: {config: {preset: quick}}}")

    assert settings.load_run_config() == {"ops": {"trained_cnn": {"config": {"preset": "quick"}}}}


def test_tags_in_the_run_config_run_nothing(tmp_path: Path) -> None:
    """The file is data; a tag that names a function is an error."""
    path, proof = tmp_path / "run.yaml", tmp_path / "proof"
    path.write_text(f"ops: !!python/object/apply:os.system ['touch {proof}']\n")

    with pytest.raises(dg.Failure, match="cannot be read: could not determine a constructor"):
        PipelineSettings(run_config=path).load_run_config()

    assert not proof.exists()


def test_code_version_depends_on_the_packages() -> None:
    assert code_version("drift") == code_version("drift") != code_version("packing")


def test_the_version_of_a_bento_depends_on_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is packed, too, so a change of it makes the bento stale."""
    versioned: list[str] = []
    monkeypatch.setattr(
        "emotion_assets.resources.source_version", lambda *folders: versioned.extend(folder.name for folder in folders)
    )
    code_version("drift")
    code_version("packing")

    assert versioned == ["core", "drift", "core", "packing", "emotion_service"]


def test_git_commit_is_named_or_unknown() -> None:
    assert git_commit()


def test_a_step_on_a_folder_works_on_it_directly(tmp_path: Path) -> None:
    """Only a data root in object storage is copied."""
    settings = PipelineSettings(data_dir=tmp_path / "root")

    @uses_data("catalogue", writes=("splits",))
    def step(settings: PipelineSettings, number: int) -> tuple[Path, int]:
        """Do something."""
        return settings.paths.root, number

    assert step(settings, number=3) == (settings.data_dir, 3)
    assert step.__doc__ == "Do something."
    assert not settings.data_dir.exists()


def test_a_step_whose_files_another_host_changed_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster's own retry, a few times."""
    calls: list[str] = []

    class Storage:
        def __init__(self, url: str, local: Path) -> None:
            calls.append(url)

        def __getattr__(self, name: str) -> object:
            return lambda folder: calls.append(f"{name} {folder}")

        def commit(self, folder: str) -> None:
            raise ChangedElsewhereError(folder)

    monkeypatch.setattr("emotion_assets.resources.RemoteRoot", Storage)
    settings = PipelineSettings(data_dir="s3://bucket/root", cache_dir=tmp_path)

    with pytest.raises(dg.RetryRequested), settings.opened("predictions", "models", writes=("splits",)):
        calls.append("the step")

    assert calls[0] == "s3://bucket/root"
    assert calls[2:] == ["fetch predictions", "checkout models", "checkout splits", "the step"]


def test_labels_whose_images_were_not_uploaded_are_collected_again(
    s3_root: str, tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails between collecting and uploading loses no label."""
    settings = PipelineSettings(data_dir=s3_root, cache_dir=tmp_path)
    store = open_store(s3_root)
    store.put("raw/Sad/1.jpg", face)
    store.put("predictions/images/2026-11-22/ab1.jpeg", face)
    store.put("feedback/ab/ab1.json", json.dumps({"prediction_id": "ab1", "emotion": "happy"}).encode())

    def collect() -> CollectedLabels:
        with settings.opened("predictions", writes=("raw", "feedback")) as paths:
            return collect_labels(paths)

    def fail(*_: object) -> None:
        raise OSError("The storage does not respond.")

    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.core.remote.RemoteRoot.create", fail)
        with pytest.raises(OSError, match="does not respond"):
            collect()
    again, after = collect(), collect()

    assert (again.num_new_files, again.num_removed_by_user) == (1, 0)
    assert (after.num_new_files, after.num_removed_by_user, after.num_files) == (0, 0, 1)
    assert bytes(store.get("raw/Happy/feedback/ab1.jpeg").bytes()) == face
