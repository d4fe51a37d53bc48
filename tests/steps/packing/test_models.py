from __future__ import annotations

import subprocess
from pathlib import Path

import bentoml
import pytest

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.packing.models import clean_models, main, roll_back
from emotion_assets.steps.registry.registry import Decision, Registry
from tests.steps.evaluation.helpers import add_bundle, version


def decide(registry: Registry, name: str, *, accepted: bool = True) -> None:
    registry.record(Decision(candidate=name, champion=registry.champion(), is_accepted=accepted, reasons=["because"]))


@pytest.fixture
def root(tmp_path: Path, bundle_dir: Path) -> Path:
    """Three accepted models and one rejected in between; the third is the champion."""
    registry = Registry(tmp_path / "models")
    for number in (1, 2, 3, 4):
        decide(registry, add_bundle(tmp_path / "models", bundle_dir, number), accepted=number != 3)
    return tmp_path


def test_roll_back_to_a_damaged_model_changes_nothing(root: Path) -> None:
    """The champion stays, and nothing is recorded."""
    registry = Registry(root / "models")
    (root / "models" / version(2) / "model.onnx").write_bytes(b"torn")
    entries = len(registry.history())

    with pytest.raises(BundleMismatchError):
        roll_back(DataPaths(root))

    assert registry.champion() == version(4)
    assert len(registry.history()) == entries


def test_a_failed_rollback_can_be_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must not turn one rollback into two."""
    registry = Registry(root / "models")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.steps.packing.bento.pack_version", fail)
        patch.setattr("sys.argv", ["models", str(root), "rollback"])
        with pytest.raises(SystemExit, match="No space left on device"):
            main()
    assert registry.champion() == version(4)

    assert roll_back(DataPaths(root)) == version(2) == registry.champion()


def test_roll_back_packs_the_earlier_model(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """BentoML's latest model and bento are the earlier ones, ready to be served; its classes may be others."""
    monkeypatch.setattr("sys.argv", ["models", str(root), "rollback"])
    main()

    assert f"{version(2)} (angry, fear, happy, sad, surprise) is accepted and packed" in capsys.readouterr().out
    assert bentoml.models.get("emotion_cnn:latest").tag.version == version(2)
    assert bentoml.bentos.get("emotion_service:latest").tag.version == version(2)
    Classifier(Path(bentoml.models.get("emotion_cnn:latest").path)).self_test()


def test_the_command_lists_the_models(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Newest first, with the state of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["models", str(root), "list"])
        main()

    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("version")
    assert [line.split()[:2] for line in lines] == [
        [version(4), "champion"],
        [version(3), "rejected"],
        [version(2), "accepted"],
        [version(1), "accepted"],
    ]


def test_the_command_says_why_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any model, a rollback fails with a sentence and no traceback."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["models", str(tmp_path), "rollback"])
        with pytest.raises(SystemExit, match="no earlier champion"):
            main()
        patch.setattr("sys.argv", ["models", str(tmp_path), "list"])
        main()

    assert "no models yet" in capsys.readouterr().out


def test_clean_models_keeps_the_asked_numbers(root: Path, bundle_dir: Path) -> None:
    """The champion, the asked numbers of earlier and rejected models, those not evaluated and the history stay."""
    registry = Registry(root / "models")
    add_bundle(root / "models", bundle_dir, 5)
    decisions = len(registry.history())
    (root / "reports" / "evaluation" / version(1)).mkdir(parents=True)

    removed = clean_models(DataPaths(root), keep_accepted=1, keep_rejected=0)

    assert removed == [version(1), version(3)]
    assert registry.versions() == [version(2), version(4), version(5)]
    assert not (root / "reports" / "evaluation" / version(1)).exists()
    assert len(registry.history()) == decisions
    assert clean_models(DataPaths(root), keep_accepted=1, keep_rejected=0) == []


def test_clean_models_keeps_what_is_served(root: Path) -> None:
    """A service starts a killed worker from the bento that it was started from."""
    roll_back(DataPaths(root), version(1))
    bento = Path(bentoml.bentos.get(f"emotion_service:{version(1)}").path)
    roll_back(DataPaths(root), version(4))
    with subprocess.Popen(["sleep", "60"], cwd=bento / "src") as process:
        removed = clean_models(DataPaths(root), keep_accepted=0, keep_rejected=0)
        process.kill()

    assert removed
    assert version(1) not in removed
    assert (bento / "bento.yaml").exists()
    assert version(1) in clean_models(DataPaths(root), keep_accepted=0, keep_rejected=0)


def test_clean_models_removes_bentos_too(root: Path) -> None:
    """A removed version is gone from both of BentoML's stores, the champion's stays the latest."""
    roll_back(DataPaths(root), version(1))
    roll_back(DataPaths(root), version(4))

    clean_models(DataPaths(root), keep_accepted=0, keep_rejected=0)

    assert bentoml.models.get("emotion_cnn:latest").tag.version == version(4)
    with pytest.raises(bentoml.exceptions.NotFound):
        bentoml.models.get(f"emotion_cnn:{version(1)}")
    with pytest.raises(bentoml.exceptions.NotFound):
        bentoml.bentos.get(f"emotion_service:{version(1)}")
