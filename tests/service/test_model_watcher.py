from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emotion_service import model_watcher
from emotion_service.app import EmotionApp
from emotion_service.model_watcher import RETRY_SECONDS, ModelWatcher, champion_version
from tests.bundles import change_manifest
from tests.service.conftest import make_app


def name_champion(models_dir: Path, version: str | None) -> None:
    models_dir.mkdir(parents=True, exist_ok=True)
    (models_dir / "champion.json").write_text(json.dumps({"schema_version": 1, "version": version, "history": []}))


def add_bundle(models_dir: Path, bundle_dir: Path, version: str) -> Path:
    target = models_dir / version
    shutil.copytree(bundle_dir, target)
    change_manifest(target, version=version)
    return target


NEWER = "20991231-000000-aaaaaaaa"


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    """A service with its packed model."""
    return make_app(tmp_path, bundle_dir)


def watch(app: EmotionApp) -> ModelWatcher:
    return ModelWatcher(app.settings.data_dir / "models", lambda: app.version, app.load)


def test_a_newly_accepted_model_is_taken(app: EmotionApp, bundle_dir: Path) -> None:
    """After the pointer moved, one poll is enough; without a pointer nothing changes."""
    models_dir = app.settings.data_dir / "models"
    watching = watch(app)
    watching.poll()
    assert app.version == bundle_dir.name

    add_bundle(models_dir, bundle_dir, NEWER)
    name_champion(models_dir, NEWER)
    watching.poll()

    assert app.version == NEWER


def test_a_model_that_fails_its_test_is_not_taken(
    app: EmotionApp, bundle_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong golden prediction keeps the old model, is logged once, and a later good one is taken."""
    models_dir = app.settings.data_dir / "models"
    bad = add_bundle(models_dir, bundle_dir, NEWER)
    change_manifest(bad, golden_prediction=[1, 0, 0, 0, 0])
    name_champion(models_dir, NEWER)
    watching = watch(app)

    watching.poll()
    watching.poll()
    assert app.version == bundle_dir.name
    assert sum("cannot be served" in record.message for record in caplog.records) == 1
    better = NEWER.replace("aaaaaaaa", "bbbbbbbb")
    add_bundle(models_dir, bundle_dir, better)
    name_champion(models_dir, better)
    watching.poll()

    assert app.version == better


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "../../etc"}', '{"version": 7}', '{"version": null}'])
def test_a_senseless_pointer_names_nothing(tmp_path: Path, content: str) -> None:
    """A damaged pointer, or a name that is no version, is as good as none; no path is made of it."""
    (tmp_path / "champion.json").write_text(content)

    assert champion_version(tmp_path) is None
    assert champion_version(tmp_path / "missing") is None


def test_following_can_be_switched_off(bundle_dir: Path, tmp_path: Path) -> None:
    """With the setting off, the packed model stays, whatever the pointer says."""
    add_bundle(tmp_path / "models", bundle_dir, NEWER)
    name_champion(tmp_path / "models", NEWER)
    for follows, expected in ((False, bundle_dir.name), (True, NEWER)):
        app = make_app(tmp_path, bundle_dir, follow_champion=follows)
        app.follow_champion()
        app.close()

        assert app.version == expected


@pytest.mark.parametrize("change", [{"files": None}, {"golden_prediction": [1.0]}, {"training": 7, "version": 7}])
def test_a_manifest_of_other_types_stops_nothing(app: EmotionApp, bundle_dir: Path, change: dict[str, Any]) -> None:
    """A worker that starts with its own good model must not die of another one."""
    models_dir = app.settings.data_dir / "models"
    change_manifest(add_bundle(models_dir, bundle_dir, NEWER), **change)
    name_champion(models_dir, NEWER)

    watch(app).poll()

    assert app.version == bundle_dir.name


def test_a_model_that_is_late_is_taken_when_it_is_there(
    app: EmotionApp, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied from elsewhere, the pointer may come before the folder; the next try is a minute away."""
    models_dir, now = app.settings.data_dir / "models", 1000.0
    monkeypatch.setattr(model_watcher, "time", SimpleNamespace(monotonic=lambda: now))
    watching = watch(app)
    name_champion(models_dir, NEWER)
    watching.poll()
    add_bundle(models_dir, bundle_dir, NEWER)
    watching.poll()
    assert app.version == bundle_dir.name

    now += RETRY_SECONDS
    watching.poll()

    assert app.version == NEWER


def test_storage_that_is_away_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Until it responds again; meanwhile the local copy counts."""
    answers = iter([OSError("away"), OSError("away"), None, OSError("away")])

    class Storage:
        url = "s3://bucket/root"

        def checkout(self, folder: str, only: tuple[str, ...]) -> None:
            if error := next(answers):
                raise error

    watcher = ModelWatcher(tmp_path, lambda: "v", lambda bundle_dir: None, Storage())  # type: ignore[arg-type]
    for _ in range(4):
        watcher.poll()

    assert [record.getMessage() for record in caplog.records] == [
        "s3://bucket/root cannot be read (away); using its local copy"
    ] * 2


def test_a_model_that_failed_may_fail_again_later(
    bundle_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After another one was served, its failure is told again."""
    app = make_app(tmp_path, bundle_dir)
    models_dir = tmp_path / "models"
    watching = watch(app)
    name_champion(models_dir, NEWER)
    watching.poll()
    better = NEWER.replace("aaaaaaaa", "bbbbbbbb")
    add_bundle(models_dir, bundle_dir, better)
    for name in (better, NEWER):
        name_champion(models_dir, name)
        watching.poll()
    app.close()

    assert sum("cannot be served" in record.message for record in caplog.records) == 2


def test_pointer_and_bundle_are_fetched(tmp_path: Path) -> None:
    """From object storage, the bundle only of the accepted version."""
    fetched = []

    class Storage:
        url = "s3://bucket/root"

        def checkout(self, folder: str, only: tuple[str, ...]) -> None:
            fetched.append((folder, *only))

    name_champion(tmp_path, NEWER)
    ModelWatcher(tmp_path, lambda: "v", lambda bundle_dir: None, Storage()).poll()  # type: ignore[arg-type]

    assert fetched == [("models", "champion.json"), ("models", f"{NEWER}/")]
