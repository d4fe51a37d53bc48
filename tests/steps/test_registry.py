from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import bentoml
import numpy as np
import pytest

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import BundleMismatchError, MissingModelError, UnusableDataError
from emotion_assets.steps.evaluation.candidate import DataPaths, evaluate_candidate
from emotion_assets.steps.evaluation.gate import GateConfig
from emotion_assets.steps.packing.models import clean_models, list_models, main, roll_back
from emotion_assets.steps.registry.decision import Decision
from emotion_assets.steps.registry.registry import Registry

LENIENT = GateConfig(min_accuracy=0, min_recall=0, max_calibration_error=1)
STRICT = GateConfig(min_accuracy=1.1)


def version(number: int) -> str:
    return f"20260101-0000{number:02}-0000000{number % 10}"


def add_bundle(models_dir: Path, bundle_dir: Path, number: int) -> str:
    """Copy a bundle under another version."""
    target = models_dir / version(number)
    shutil.copytree(bundle_dir, target)
    manifest = json.loads((target / "manifest.json").read_text()) | {"version": target.name}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target.name


def decide(registry: Registry, name: str, *, accepted: bool = True) -> None:
    registry.record(Decision(name, registry.champion(), accepted, ["because"], None, None, None, None))


def step_back(registry: Registry, name: str | None = None, reason: str = "") -> str:
    target = registry.earlier_champion(name)
    registry.roll_back(target, reason)
    return target


@pytest.fixture
def root(tmp_path: Path, bundle_dir: Path) -> Path:
    """Three accepted models and one rejected in between; the third is the champion."""
    registry = Registry(tmp_path / "models")
    for number in (1, 2, 3, 4):
        decide(registry, add_bundle(tmp_path / "models", bundle_dir, number), accepted=number != 3)
    return tmp_path


def test_roll_back_goes_to_the_model_accepted_before(root: Path) -> None:
    """One step back names the earlier accepted model, a second one the one before it; then there is none."""
    registry = Registry(root / "models")

    assert registry.champion() == version(4)
    assert step_back(registry) == version(2) == registry.champion()
    assert step_back(registry) == version(1) == registry.champion()
    assert registry.rolled_back() == {version(4), version(2)}
    with pytest.raises(MissingModelError, match="no accepted model to go back to"):
        step_back(registry)


def test_roll_back_to_a_named_version(root: Path) -> None:
    """Any accepted version may be named, a rejected or unknown one may not; the history tells why."""
    registry = Registry(root / "models")
    for wrong in (version(3), version(9), version(4)):
        with pytest.raises(MissingModelError, match="never accepted"):
            step_back(registry, wrong)

    step_back(registry, version(1), "complaints about surprise")

    assert registry.champion() == version(1)
    assert registry.history()[-1]["reason"] == "complaints about surprise"
    assert step_back(registry, version(4)) == version(4)
    assert registry.rolled_back() == {version(1)}


def test_roll_back_never_goes_forward(root: Path, bundle_dir: Path) -> None:
    """After a step back to a named version, one step more goes to what served before that."""
    registry = Registry(root / "models")
    step_back(registry, version(1))
    with pytest.raises(MissingModelError, match="no accepted model to go back to"):
        step_back(registry)
    decide(registry, add_bundle(root / "models", bundle_dir, 6))

    assert registry.line() == [version(1), version(6)]
    assert step_back(registry) == version(1)


def test_roll_back_to_a_damaged_model_changes_nothing(root: Path) -> None:
    """The model that serves stays the champion, and can be judged against."""
    registry = Registry(root / "models")
    (root / "models" / version(2) / "model.onnx").write_bytes(b"torn")
    entries = len(registry.history())

    with pytest.raises(BundleMismatchError):
        roll_back(root / "models", root / "reports")

    assert registry.champion() == version(4)
    assert len(registry.history()) == entries


def test_a_step_back_that_failed_can_be_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must not turn one step back into two."""
    registry = Registry(root / "models")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.steps.packing.bento.pack", fail)
        patch.setattr("sys.argv", ["models", str(root), "rollback"])
        assert main() == 1
    assert registry.champion() == version(4)

    assert roll_back(root / "models", root / "reports") == version(2) == registry.champion()


def test_roll_back_packs_the_earlier_model(root: Path) -> None:
    """BentoML's latest model and bento are the earlier ones, ready to be served."""
    assert roll_back(root / "models", root / "reports") == version(2)

    assert bentoml.models.get("emotion_cnn:latest").tag.version == version(2)
    assert bentoml.bentos.get("emotion_service:latest").tag.version == version(2)
    Classifier(Path(bentoml.models.get("emotion_cnn:latest").path)).self_test()


def test_a_rolled_back_model_is_not_accepted_again(drawn_root: Path, bundle_dir: Path, tmp_path: Path) -> None:
    """Judging it once more rejects it; a person may force it with a reason, which is kept."""
    registry = Registry(tmp_path / "models")
    for number in (1, 2):
        decide(registry, add_bundle(tmp_path / "models", bundle_dir, number))
    step_back(registry)
    where = DataPaths(drawn_root / "splits", drawn_root / "catalogue", tmp_path / "none", tmp_path / "reports")

    rejected = evaluate_candidate(where, registry, LENIENT).decision
    assert not rejected.is_accepted
    assert "rolled back" in rejected.reasons[0]
    assert registry.champion() == version(1)
    forced = evaluate_candidate(where, registry, LENIENT, force_reason="complaints were about the camera").decision

    assert forced.is_accepted
    assert registry.champion() == version(2)
    assert registry.history()[-1]["force_reason"] == "complaints were about the camera"


def test_force_keeps_what_the_gate_said(drawn_root: Path, bundle_dir: Path, tmp_path: Path) -> None:
    """A forced model is accepted, its rejection stands beside the reason, and a blank reason is none."""
    registry = Registry(tmp_path / "models")
    name = add_bundle(tmp_path / "models", bundle_dir, 1)
    where = DataPaths(drawn_root / "splits", drawn_root / "catalogue", tmp_path / "none", tmp_path / "reports")

    assert not evaluate_candidate(where, registry, STRICT).decision.is_accepted
    assert registry.champion() is None
    with pytest.raises(UnusableDataError, match="blank"):
        evaluate_candidate(where, registry, STRICT, force_reason="  ")
    judgement = evaluate_candidate(where, registry, STRICT, force_reason="a demonstration")

    assert registry.champion() == name
    assert any("below the floor" in reason for reason in judgement.decision.reasons)
    page = (judgement.report_dir / "report.html").read_text()
    assert "Forced" in page
    assert "a demonstration" in page


def test_list_models_tells_states_and_scores(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Newest first, with the state of each; the command prints the same."""
    step_back(Registry(root / "models"))

    rows = list_models(root / "models", root / "reports")

    assert [(row["version"], row["state"]) for row in rows] == [
        (version(4), "rolled back"),
        (version(3), "rejected"),
        (version(2), "champion"),
        (version(1), "accepted"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["models", str(root), "list"])
        assert main() == 0
    assert version(2) in capsys.readouterr().out


def test_a_model_of_an_older_schema_is_listed_as_unreadable(root: Path) -> None:
    """One that this code cannot read must not hide the others."""
    manifest = root / "models" / version(1) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": ', '"schema_version": 9'))

    rows = list_models(root / "models", root / "reports")

    assert [row["data"] == "unreadable" for row in rows] == [False, False, False, True]


def test_the_command_says_why_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any model, a rollback fails with a sentence and no traceback."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["models", str(tmp_path), "rollback"])
        assert main() == 1
        patch.setattr("sys.argv", ["models", str(tmp_path), "list"])
        assert main() == 0
    output = capsys.readouterr()

    assert "no accepted model to go back to" in output.err
    assert "no model yet" in output.out


def test_clean_models_keeps_what_its_rule_says(root: Path, bundle_dir: Path) -> None:
    """The champion, the asked number of earlier and rejected ones, and what nobody judged stay; the history does too."""
    registry = Registry(root / "models")
    add_bundle(root / "models", bundle_dir, 5)
    decisions = len(registry.history())
    (root / "reports" / "evaluation" / version(1)).mkdir(parents=True)

    removed = clean_models(root / "models", root / "reports", keep_accepted=1, keep_rejected=0)

    assert removed == [version(1), version(3)]
    assert registry.versions() == [version(2), version(4), version(5)]
    assert not (root / "reports" / "evaluation" / version(1)).exists()
    assert len(registry.history()) == decisions
    assert clean_models(root / "models", root / "reports", keep_accepted=1, keep_rejected=0) == []


def test_clean_models_removes_bentos_too(root: Path) -> None:
    """A removed version is gone from both of BentoML's stores, the champion's stays the latest."""
    roll_back(root / "models", root / "reports", version(1))
    roll_back(root / "models", root / "reports", version(4))

    clean_models(root / "models", root / "reports", keep_accepted=0, keep_rejected=0)

    assert bentoml.models.get("emotion_cnn:latest").tag.version == version(4)
    with pytest.raises(bentoml.exceptions.NotFound):
        bentoml.models.get(f"emotion_cnn:{version(1)}")
    with pytest.raises(bentoml.exceptions.NotFound):
        bentoml.bentos.get(f"emotion_service:{version(1)}")


def test_what_a_running_service_was_started_from_stays(root: Path) -> None:
    """It may have to start a worker again, which needs the bento's folder, whatever it serves by now."""
    roll_back(root / "models", root / "reports", version(1))
    bento_dir = Path(bentoml.bentos.get(f"emotion_service:{version(1)}").path)
    roll_back(root / "models", root / "reports", version(4))
    command = "import sys; from pathlib import Path; from emotion_assets.core.files import hold;"
    command += "hold(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    service = subprocess.Popen(
        [sys.executable, "-c", command, str(bento_dir / "bento.yaml")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with service:
        assert service.stdout
        service.stdout.readline()
        kept = clean_models(root / "models", root / "reports", keep_accepted=0, keep_rejected=0)
        service.kill()

    assert version(1) not in kept
    assert version(1) in clean_models(root / "models", root / "reports", keep_accepted=0, keep_rejected=0)


def test_latency_is_measured_and_has_a_ceiling(drawn_root: Path, bundle_dir: Path, tmp_path: Path) -> None:
    """A model slower than the ceiling is rejected with both numbers."""
    registry = Registry(tmp_path / "models")
    add_bundle(tmp_path / "models", bundle_dir, 1)
    where = DataPaths(drawn_root / "splits", drawn_root / "catalogue", tmp_path / "none", tmp_path / "reports")
    impossible = GateConfig(min_accuracy=0, min_recall=0, max_calibration_error=1, max_latency_ms=1e-6)

    decision = evaluate_candidate(where, registry, impossible).decision

    assert not decision.is_accepted
    assert decision.latency_ms
    assert np.isfinite(decision.latency_ms)
    assert "above the ceiling" in decision.reasons[0]
