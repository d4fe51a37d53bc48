"""The model registry: `models/champion.json` names the champion and keeps the history of every decision.

An entry of the history is a decision of the gate or a rollback by a person.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from emotion_assets.core.bundle import check_files, complete_versions, read_manifest
from emotion_assets.core.errors import BundleMismatchError, MissingModelError, UnusableDataError
from emotion_assets.core.files import locked, write_json
from emotion_assets.core.layout import CHAMPION_NAME, DataPaths

CARD_NAME: Final = "model_card.md"
SCORES_NAME: Final = "scores.json"
"""In a model's report folder: its scores and the decision on it."""
_SCORE_COLUMNS: Final = ("accuracy", "macro_f1", "calibration_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a candidate becomes the champion, and the numbers behind it; a rejection is a normal outcome."""

    candidate: str
    is_accepted: bool
    reasons: list[str]
    """Every reason for a rejection, or one sentence on why the candidate passed."""
    champion: str | None = None
    """The version that the candidate was compared with."""
    accuracy_difference: float | None = None
    """Candidate minus champion."""
    p_value: float | None = None
    """Exact one-sided McNemar test of "the candidate is worse"."""
    num_only_candidate_correct: int | None = None
    num_only_champion_correct: int | None = None
    latency_ms: float | None = None
    """Median time for one image on one thread."""
    force_reason: str | None = None
    """Why a person accepted the candidate although the gate rejected it; `reasons` keeps what the gate said."""

    @property
    def served(self) -> str | None:
        """The version that is the champion after the decision."""
        return self.candidate if self.is_accepted else self.champion

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read a decision from its JSON record, ignoring fields that were added to it."""
        return cls(**{field.name: record[field.name] for field in dataclasses.fields(cls) if field.name in record})


class ModelState(StrEnum):
    """What the registry knows about a model."""

    CHAMPION = "champion"
    ACCEPTED = "accepted"
    """It was a champion and was replaced by a newer one."""
    REJECTED = "rejected"
    ROLLED_BACK = "rolled back"
    NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model's state, and every reason of the last decision on it."""

    version: str
    state: ModelState
    reasons: list[str]


@dataclass(slots=True)
class _Replay:
    """The outcome of all entries of the history so far."""

    accepted: list[str] = field(default_factory=list)
    """Versions that were ever accepted, by their latest acceptance; their bundles may be gone."""
    rolled_back: set[str] = field(default_factory=set)
    """Versions that a person rolled back, and that were not accepted since."""
    lineage: list[str] = field(default_factory=list)
    """The champions that led to the present one, oldest first, without those that a rollback undid."""
    reasons: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registry:
    """The bundles in `models_dir` and the pointer to the champion."""

    models_dir: Path

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Lock the registry, so that concurrent processes lose no decision."""
        return locked(self.models_dir / ".registry.lock")

    def versions(self) -> list[str]:
        """Return the versions of all complete bundles, oldest first by name."""
        return complete_versions(self.models_dir)

    def candidate(self) -> str:
        """Return the version of the newest complete bundle.

        Raises:
            MissingModelError: nothing was trained yet.
        """
        versions = self.versions()
        if not versions:
            raise MissingModelError(f"There is no model in {self.models_dir}. Materialize trained_cnn first.")
        return versions[-1]

    def champion(self) -> str | None:
        """Return the version of the champion, or None if no model was accepted yet.

        Raises:
            BundleMismatchError: `champion.json` is damaged, or names a model that does not exist.
        """
        version: str | None = self._read()["version"]
        if version is not None and version not in self.versions():
            raise BundleMismatchError(
                f"{self.models_dir / CHAMPION_NAME} names {version!r}, which is not a complete bundle in this folder. "
                "Restore that bundle, or set `version` to another one."
            )
        return version

    def require_champion(self) -> Path:
        """Return the folder of the champion's bundle.

        Raises:
            MissingModelError: no model was accepted yet.
            BundleMismatchError: as `champion`.
        """
        version = self.champion()
        if version is None:
            raise MissingModelError(
                f"No model has been accepted yet: {self.models_dir / CHAMPION_NAME} names none. Run the job "
                "`retrain`; if it was rejected, evaluation_report gives the reasons."
            )
        return self.models_dir / version

    def champion_since(self) -> datetime:
        """Return when the champion last changed; the year 1 if it never did."""
        changes = self._changes()
        return datetime.fromisoformat(changes[-1]["at"]) if changes else datetime.min.replace(tzinfo=UTC)

    def accepted_again_at(self) -> datetime | None:
        """Return when the champion was accepted again, by a rollback or by force; None if it never was replaced."""
        *earlier, last = [entry.get("rolled_back_to") or entry["candidate"] for entry in self._changes()] or [None]
        return self.champion_since() if last in earlier else None

    def _changes(self) -> list[dict[str, Any]]:
        """Return the entries of the history that made a champion, the oldest first."""
        return [entry for entry in self.history() if entry.get("is_accepted") or "rolled_back_to" in entry]

    def history(self) -> list[dict[str, Any]]:
        """Return every recorded decision and rollback, oldest first."""
        return list(self._read()["history"])

    def models(self) -> list[ModelRecord]:
        """Return the state of every complete bundle, newest first."""
        champion, replay = self.champion(), self._replay()

        def state(version: str) -> ModelState:
            if version == champion:
                return ModelState.CHAMPION
            if version in replay.rolled_back:
                return ModelState.ROLLED_BACK
            if version in replay.accepted:
                return ModelState.ACCEPTED
            return ModelState.REJECTED if version in replay.reasons else ModelState.NOT_EVALUATED

        versions = reversed(self.versions())
        return [ModelRecord(version, state(version), replay.reasons.get(version, [])) for version in versions]

    def state(self, version: str) -> ModelState:
        """Return the state of one complete bundle."""
        return next(model.state for model in self.models() if model.version == version)

    def acceptance(self, version: str) -> Decision | None:
        """Return the latest decision that accepted a version, or None if there is none."""
        for entry in reversed(self.history()):
            if entry.get("candidate") == version and entry["is_accepted"]:
                return Decision.from_record(entry)
        return None

    def select_removable(self, *, keep_accepted: int, keep_rejected: int) -> list[str]:
        """Return the evaluated models to delete, oldest first.

        The champion, the `keep_accepted` latest models before it and the `keep_rejected` newest rejected ones stay.
        Champions that led to the present one stay before those that were rolled back. A model that was not evaluated
        is never removed, nor the newest: the next training on the same data would make it again, without its decision.
        """
        replay = self._replay()
        states = {model.version: model.state for model in reversed(self.models())}
        by_age = [version for version in replay.accepted if version not in replay.lineage] + replay.lineage
        earlier = [name for name in by_age if states.get(name) in (ModelState.ACCEPTED, ModelState.ROLLED_BACK)]
        rejected = [name for name, state in states.items() if state == ModelState.REJECTED]
        kept = {*earlier[::-1][:keep_accepted], *rejected[::-1][:keep_rejected]}
        kept |= {name for name, state in states.items() if state in (ModelState.CHAMPION, ModelState.NOT_EVALUATED)}
        kept |= {*list(states)[-1:]}
        return [name for name in states if name not in kept]

    def record(self, decision: Decision) -> None:
        """Append a decision to the history; an accepted candidate becomes the champion."""
        self._append(dataclasses.asdict(decision), decision.candidate if decision.is_accepted else None)

    def earlier_champion(self, version: str | None = None) -> str:
        """Return the version to roll back to: `version`, or by default the champion before the present one.

        Raises:
            MissingModelError: `version` cannot be rolled back to, or there is no earlier champion.
            BundleMismatchError: its bundle is damaged.
        """
        champion, complete, replay = self.champion(), set(self.versions()), self._replay()
        choices = [name for name in replay.accepted if name in complete and name != champion]
        if version is None:
            earlier = [name for name in replay.lineage if name in choices]
            if not earlier:
                raise MissingModelError(
                    f"There is no earlier champion to roll back to from {champion}. `make models` lists all models."
                )
            version = earlier[-1]
        elif version not in choices:
            raise MissingModelError(
                f"Cannot roll back to {version}: it is the champion, was never accepted, or was deleted. "
                f"Choose one of: {', '.join(choices) or 'none'}."
            )
        check_files(self.models_dir / version, read_manifest(self.models_dir / version))
        return version

    def roll_back(self, version: str, reason: str = "") -> None:
        """Make a version that `earlier_champion` returned the champion again."""
        self._append({"rolled_back_from": self.champion(), "rolled_back_to": version, "reason": reason}, version)

    def _replay(self) -> _Replay:
        replay = _Replay()
        for entry in self.history():
            if "rolled_back_to" in entry:
                source, target = entry["rolled_back_from"], entry["rolled_back_to"]
                why = f": {entry['reason']}" if entry["reason"] else "."
                replay.rolled_back.add(source)
                lineage = replay.lineage
                replay.lineage = lineage[: lineage.index(target) + 1] if target in lineage else [*lineage, target]
                replay.reasons[source] = [f"Rolled back to {target}{why}"]
                replay.reasons[target] = [f"Restored by a rollback from {source}{why}"]
            else:
                target = entry["candidate"]
                forced = [f"Accepted by a person: {entry['force_reason']}"] if entry["force_reason"] else []
                replay.reasons[target] = forced + entry["reasons"]
                if not entry["is_accepted"]:
                    continue
                replay.accepted = [name for name in replay.accepted if name != target] + [target]
                replay.lineage = [name for name in replay.lineage if name != target] + [target]
            replay.rolled_back.discard(target)
        return replay

    def _append(self, entry: dict[str, Any], version: str | None) -> None:
        record = self._read()
        record["history"].append({"at": datetime.now(UTC).isoformat(timespec="seconds"), **entry})
        if version is not None:
            record["version"] = version
        for left_by_a_kill in self.models_dir.glob(f".{CHAMPION_NAME}.*.tmp"):
            left_by_a_kill.unlink(missing_ok=True)
        write_json(self.models_dir / CHAMPION_NAME, record)

    def _read(self) -> dict[str, Any]:
        path = self.models_dir / CHAMPION_NAME
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            return {"schema_version": 1, "version": None, "history": []}
        except ValueError as error:
            raise BundleMismatchError(f"{path} is not valid JSON ({error}). Restore it from a backup.") from error
        if not isinstance(record, dict) or record.get("schema_version") != 1:
            raise BundleMismatchError(f"{path} has an unknown schema version. Restore it from a backup.")
        return record


def model_rows(paths: DataPaths) -> list[dict[str, str]]:
    """Return a table of all models, newest first: version, state, test scores, data and reasons."""
    rows = []
    for model in Registry(paths.models).models():
        row = {"version": model.version, "state": str(model.state)}
        row |= dict.fromkeys(_SCORE_COLUMNS, "") | read_scores(paths.evaluation_report(model.version))
        try:
            row["data"] = read_manifest(paths.models / model.version).data_fingerprint[:12]
        except BundleMismatchError:
            row["data"] = "unreadable"
        rows.append(row | {"reasons": " ".join(model.reasons)})
    return rows


def read_decision(report_dir: Path) -> Decision:
    """Read the decision from a model's evaluation report.

    Raises:
        UnusableDataError: the report was removed.
    """
    try:
        return Decision.from_record(json.loads((report_dir / SCORES_NAME).read_text())["gate"])
    except FileNotFoundError as error:
        raise UnusableDataError(f"{report_dir} was removed. Materialize evaluation_report again.") from error


def read_scores(report_dir: Path) -> dict[str, str]:
    """Return the test scores in an evaluation report as text, by name; none if there is no readable report."""
    try:
        test = json.loads((report_dir / SCORES_NAME).read_text())["test"]
    except (OSError, ValueError, KeyError):
        return {}
    return {name: f"{test[name]:.4f}" for name in _SCORE_COLUMNS}
