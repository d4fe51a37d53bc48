from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from emotion_assets.core.errors import BundleMismatchError, MissingModelError, UnusableDataError
from emotion_assets.core.layout import CHAMPION_NAME, DataPaths
from emotion_assets.steps.registry.registry import (
    SCORES_NAME,
    Decision,
    ModelState,
    Registry,
    model_rows,
    read_decision,
)
from tests.bundles import change_manifest
from tests.steps.evaluation.helpers import add_bundle, version


def decide(registry: Registry, name: str, *, accepted: bool = True, force_reason: str | None = None) -> None:
    registry.record(
        Decision(
            candidate=name,
            champion=registry.champion(),
            is_accepted=accepted,
            reasons=["because"],
            force_reason=force_reason,
        )
    )


def roll_back(registry: Registry, name: str | None = None, reason: str = "") -> str:
    target = registry.earlier_champion(name)
    registry.roll_back(target, reason)
    return target


@pytest.fixture
def registry(tmp_path: Path, bundle_dir: Path) -> Registry:
    """Models 1, 2 and 4 were accepted, 3 was rejected; 4 is the champion."""
    registry = Registry(tmp_path / "models")
    for number in (1, 2, 3, 4):
        decide(registry, add_bundle(registry.models_dir, bundle_dir, number), accepted=number != 3)
    return registry


def test_only_an_accepted_candidate_becomes_the_champion(bundle_dir: Path, tmp_path: Path) -> None:
    """Every decision stays in the history."""
    registry = Registry(tmp_path)
    name = add_bundle(tmp_path, bundle_dir, 1)
    assert registry.champion() is None
    assert registry.champion_since() == datetime.min.replace(tzinfo=UTC)
    with pytest.raises(MissingModelError, match="retrain"):
        registry.require_champion()

    decide(registry, name, accepted=False)
    assert registry.champion() is None
    assert registry.acceptance(name) is None
    decide(registry, name)

    assert registry.champion() == name == registry.require_champion().name
    assert registry.champion_since().year > 2000
    assert [entry["is_accepted"] for entry in registry.history()] == [False, True]
    assert registry.acceptance(name) == Decision(candidate=name, is_accepted=True, reasons=["because"])


def test_incomplete_bundles_are_ignored(bundle_dir: Path, tmp_path: Path) -> None:
    """A folder without a manifest is not a model: its training was killed."""
    (tmp_path / "20991231-235959-deadbeef").mkdir()
    with pytest.raises(MissingModelError, match="trained_cnn"):
        Registry(tmp_path).candidate()

    assert Registry(bundle_dir.parent).candidate() == bundle_dir.name


@pytest.mark.parametrize(
    "content", ["", "{}", '{"schema_version": 1, "version": "20260101-000000-00000000", "history": []}']
)
def test_a_damaged_pointer_is_rejected(tmp_path: Path, content: str) -> None:
    """A truncated file, one of another schema and one that names a missing model are rejected with a remedy."""
    (tmp_path / CHAMPION_NAME).write_text(content)

    with pytest.raises(BundleMismatchError, match="Restore"):
        Registry(tmp_path).champion()


def test_a_rollback_restores_the_champion_before(registry: Registry) -> None:
    """Each rollback goes to the champion before the present one, until there is none."""
    assert registry.champion() == version(4)
    assert roll_back(registry) == version(2) == registry.champion()
    assert roll_back(registry) == version(1) == registry.champion()
    assert [registry.state(version(number)) for number in (2, 4)] == [ModelState.ROLLED_BACK] * 2
    with pytest.raises(MissingModelError, match="no earlier champion"):
        roll_back(registry)


def test_a_rollback_to_a_named_version(registry: Registry) -> None:
    """Any accepted version may be named, a rejected or unknown one may not; the reason is recorded."""
    for wrong in (version(3), version(9), version(4)):
        with pytest.raises(MissingModelError, match="never accepted"):
            roll_back(registry, wrong)

    roll_back(registry, version(1), "complaints about surprise")

    assert registry.champion() == version(1)
    assert registry.history()[-1]["reason"] == "complaints about surprise"
    assert roll_back(registry, version(4)) == version(4)
    assert registry.state(version(1)) == ModelState.ROLLED_BACK


def test_a_rollback_never_goes_forward(registry: Registry, bundle_dir: Path) -> None:
    """After a rollback to a named version, the next one goes to what was the champion before that."""
    roll_back(registry, version(1))
    with pytest.raises(MissingModelError, match="no earlier champion"):
        roll_back(registry)
    decide(registry, add_bundle(registry.models_dir, bundle_dir, 6))

    assert roll_back(registry) == version(1)


def test_a_damaged_model_cannot_be_restored(registry: Registry) -> None:
    """The champion stays."""
    (registry.models_dir / version(2) / "model.onnx").write_bytes(b"torn")

    with pytest.raises(BundleMismatchError):
        roll_back(registry)

    assert registry.champion() == version(4)


def test_rows_show_state_scores_data_and_reasons(registry: Registry, bundle_dir: Path) -> None:
    """Newest first; a manifest of another schema hides neither its own row nor the others."""
    paths = DataPaths(registry.models_dir.parent)
    add_bundle(paths.models, bundle_dir, 5)
    decide(registry, version(3), force_reason="a demonstration")
    roll_back(registry, version(2), "complaints")
    change_manifest(paths.models / version(1), schema_version=9)
    scores = {"accuracy": 0.5, "macro_f1": 0.25, "calibration_error": 0.125}
    paths.evaluation_report(version(2)).mkdir(parents=True)
    (paths.evaluation_report(version(2)) / SCORES_NAME).write_text(json.dumps({"test": scores}))

    rows = model_rows(paths)

    assert [(row["version"], row["state"], row["reasons"]) for row in rows] == [
        (version(5), "not evaluated", ""),
        (version(4), "accepted", "because"),
        (version(3), "rolled back", f"Rolled back to {version(2)}: complaints"),
        (version(2), "champion", f"Restored by a rollback from {version(3)}: complaints"),
        (version(1), "accepted", "because"),
    ]
    assert [row["accuracy"] for row in rows] == ["", "", "", "0.5000", ""]
    assert [row["data"] == "unreadable" for row in rows] == [False] * 4 + [True]


def test_every_reason_is_kept(registry: Registry) -> None:
    """A rejection has all its reasons; a forced acceptance has the force reason first."""
    rejected = Decision(candidate=version(3), is_accepted=False, reasons=["slow", "wrong"])
    registry.record(rejected)
    decide(registry, version(4), force_reason="a demonstration")

    reasons = {model.version: model.reasons for model in registry.models()}
    assert reasons[version(3)] == ["slow", "wrong"]
    assert reasons[version(4)] == ["Accepted by a person: a demonstration", "because"]


def test_old_models_are_removable(registry: Registry, bundle_dir: Path) -> None:
    """All but the champion, the asked numbers of earlier and rejected ones, and what was not evaluated."""
    add_bundle(registry.models_dir, bundle_dir, 5)

    assert registry.select_removable(keep_accepted=1, keep_rejected=0) == [version(1), version(3)]
    assert registry.select_removable(keep_accepted=0, keep_rejected=1) == [version(1), version(2)]
    assert registry.select_removable(keep_accepted=5, keep_rejected=3) == []
    roll_back(registry, version(1))
    decide(registry, version(5))
    # 2 and 4 were rolled back, so the champion before 5 is kept first.
    assert registry.select_removable(keep_accepted=1, keep_rejected=1) == [version(2), version(4)]
    # The newest stays: trained again on the same data, it would not be known to have been rolled back.
    roll_back(registry, version(1))
    assert version(5) not in registry.select_removable(keep_accepted=0, keep_rejected=0)


def test_a_decision_is_read_from_the_report(tmp_path: Path) -> None:
    """Fields that were added to the record are ignored, missing ones have their defaults."""
    decision = Decision(candidate="new", champion="old", is_accepted=False, reasons=["slow"], latency_ms=80.0)

    (tmp_path / "scores.json").write_text(json.dumps({"gate": asdict(decision) | {"at": "now"}}))
    assert read_decision(tmp_path) == decision

    (tmp_path / "scores.json").write_text(json.dumps({"gate": {"candidate": "x", "is_accepted": True, "reasons": []}}))
    assert read_decision(tmp_path) == Decision(candidate="x", is_accepted=True, reasons=[])


def test_the_champion_changes_with_an_acceptance_or_a_rollback(registry: Registry, bundle_dir: Path) -> None:
    """Alarms before that time are over; a rejection changes nothing."""
    path = registry.models_dir / CHAMPION_NAME
    roll_back(registry)
    decide(registry, version(3), accepted=False)
    record = json.loads(path.read_text())
    for day, entry in enumerate(record["history"], 1):
        entry["at"] = f"2026-01-{day:02}T00:00:00+00:00"
    path.write_text(json.dumps(record))

    assert registry.champion_since().day == 5
    assert registry.accepted_again_at() == registry.champion_since()
    path.write_text(json.dumps(record | {"history": record["history"][:4]}))
    assert registry.champion_since().day == 4
    assert registry.accepted_again_at() is None


def test_the_candidate_is_the_newest_model(registry: Registry) -> None:
    assert registry.candidate() == version(4)


def test_the_latest_acceptance_counts(registry: Registry) -> None:
    """A model that was rolled back and forced later keeps the reason of the person."""
    roll_back(registry)
    decide(registry, version(4), force_reason="a mistake")

    found = registry.acceptance(version(4))

    assert found is not None
    assert found.force_reason == "a mistake"
    assert registry.state(version(4)) == ModelState.CHAMPION


def test_a_model_that_was_accepted_again_is_in_the_lineage_once(registry: Registry) -> None:
    """A rollback behind it does not lead to a model that was rolled back."""
    decide(registry, version(2))

    assert roll_back(registry) == version(4)
    assert roll_back(registry) == version(1)


def test_a_deleted_model_is_no_choice(registry: Registry) -> None:
    """The next older one is restored instead, and a person is not offered it."""
    (registry.models_dir / version(2) / "manifest.json").unlink()

    with pytest.raises(MissingModelError, match=f"Choose one of: {version(1)}"):
        roll_back(registry, version(2))
    assert roll_back(registry) == version(1)


def test_models_that_were_rolled_back_are_removed(registry: Registry, bundle_dir: Path) -> None:
    """Restored and replaced, a model counts as accepted again."""
    roll_back(registry)
    roll_back(registry, version(4))
    decide(registry, add_bundle(registry.models_dir, bundle_dir, 6))

    assert registry.state(version(4)) == ModelState.ACCEPTED
    assert registry.state(version(2)) == ModelState.ROLLED_BACK


def test_a_model_that_was_rolled_back_is_kept_as_an_earlier_one(registry: Registry) -> None:
    roll_back(registry, version(1))

    assert registry.select_removable(keep_accepted=1, keep_rejected=1) == [version(2)]


def test_a_removed_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableDataError, match="Materialize evaluation_report again"):
        read_decision(tmp_path / "gone")
