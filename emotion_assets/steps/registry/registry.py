"""Which model is accepted: `models/champion.json` names it and keeps the history of every decision.

An entry of the history is a decision of the gate, or a step back that a person took.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from emotion_assets.core.bundle import check_files, complete_versions, read_manifest
from emotion_assets.core.errors import BundleMismatchError, MissingModelError
from emotion_assets.core.files import locked, write_json
from emotion_assets.core.layout import CHAMPION_NAME
from emotion_assets.steps.registry.decision import Decision

CARD_NAME: Final = "model_card.md"
SCORES_NAME: Final = "scores.json"


@dataclass(frozen=True, slots=True)
class Registry:
    """The bundles below `models_dir` and the pointer to the accepted one."""

    models_dir: Path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the registry alone, so that no decision of another process is lost."""
        with locked(self.models_dir / ".registry.lock"):
            yield

    def candidate(self) -> str:
        """Return the newest complete bundle's version.

        Raises:
            MissingModelError: nothing was trained yet.
        """
        versions = self.versions()
        if not versions:
            raise MissingModelError(f"{self.models_dir} holds no model. Materialize trained_cnn first.")
        return versions[-1]

    def versions(self) -> list[str]:
        """Return the versions of all complete bundles, oldest first; names decide, not clocks."""
        return complete_versions(self.models_dir)

    def champion(self) -> str | None:
        """Return the accepted version, or None while there is none.

        Raises:
            BundleMismatchError: `champion.json` is damaged or names a model that is not there.
        """
        version = self._read()["version"]
        if version is not None and version not in self.versions():
            raise BundleMismatchError(
                f"{self.models_dir / CHAMPION_NAME} names {version!r}, which is no complete bundle here. "
                "Restore the folder, or name another version in the file."
            )
        return version if version is None else str(version)

    def require_champion(self) -> Path:
        """Return the folder of the accepted bundle.

        Raises:
            MissingModelError: none was accepted yet.
            BundleMismatchError: as `champion`.
        """
        version = self.champion()
        if version is None:
            raise MissingModelError(
                f"No model is accepted yet ({self.models_dir / CHAMPION_NAME} names none). "
                "Run the job `retrain`, and read evaluation_report if its candidate was rejected."
            )
        return self.models_dir / version

    def history(self) -> list[dict[str, Any]]:
        """Return every decision recorded so far, oldest first."""
        return list(self._read()["history"])

    def champion_since(self) -> datetime:
        """Return when the pointer was moved last; the year 1 if it never was."""
        for entry in reversed(self.history()):
            if entry.get("is_accepted") or "rolled_back_to" in entry:
                return datetime.fromisoformat(entry["at"])
        return datetime.min.replace(tzinfo=UTC)

    def accepted(self) -> list[str]:
        """Return every version that was accepted once, in the order of the latest acceptance; complete or not."""
        order = dict.fromkeys(
            entry["candidate"] for entry in reversed(self.history()) if entry.get("is_accepted") is True
        )
        return list(reversed(order))

    def acceptance(self, version: str) -> Decision | None:
        """Return the gate's latest decision that accepted a version, or None if there is none."""
        for entry in reversed(self.history()):
            if entry.get("candidate") == version and entry.get("is_accepted"):
                return Decision.from_record(entry)
        return None

    def rolled_back(self) -> set[str]:
        """Return the versions that a person stepped back from, and that were not accepted since."""
        found: set[str] = set()
        for entry in self.history():
            if "rolled_back_from" in entry:
                found.add(entry["rolled_back_from"])
                found.discard(entry["rolled_back_to"])
            elif entry.get("is_accepted"):
                found.discard(entry["candidate"])
        return found

    def line(self) -> list[str]:
        """Return the champions that led to the present one, oldest first, as if steps back had undone what they undid.

        An acceptance comes on top; a step back ends at its target, or puts it on top if it is none of the line.
        """
        found: list[str] = []
        for entry in self.history():
            if "rolled_back_to" in entry:
                target = entry["rolled_back_to"]
                found = found[: found.index(target) + 1] if target in found else [*found, target]
            elif entry.get("is_accepted"):
                found = [name for name in found if name != entry["candidate"]] + [entry["candidate"]]
        return found

    def record(self, decision: Decision) -> None:
        """Append a decision to the history, and move the pointer if the candidate was accepted."""
        self._append(decision.as_record(), decision.candidate if decision.is_accepted else None)

    def earlier_champion(self, version: str | None = None) -> str:
        """Return `version` if one can go back to it, by default the champion before the present one.

        Raises:
            MissingModelError: there is no such version, it was never accepted, or there is none to go back to.
            BundleMismatchError: its bundle is damaged.
        """
        champion = self.champion()
        complete = set(self.versions())
        choices = [name for name in self.accepted() if name in complete and name != champion]
        if version is None:
            earlier = [name for name in self.line() if name in choices]
            if not earlier:
                raise MissingModelError(
                    f"There is no accepted model to go back to from {champion}. `make models` lists all of them."
                )
            version = earlier[-1]
        elif version not in choices:
            raise MissingModelError(
                f"{version} is the champion itself, was never accepted, or is gone. "
                f"One can go back to: {', '.join(choices) or 'none'}."
            )
        check_files(self.models_dir / version, read_manifest(self.models_dir / version))
        return version

    def roll_back(self, version: str, reason: str = "") -> None:
        """Move the pointer back to a version that `earlier_champion` returned."""
        self._append({"rolled_back_from": self.champion(), "rolled_back_to": version, "reason": reason}, version)

    def _append(self, entry: dict[str, Any], version: str | None) -> None:
        record = self._read()
        record["history"].append({"at": datetime.now(UTC).isoformat(timespec="seconds"), **entry})
        if version is not None:
            record["version"] = version
        write_json(self.models_dir / CHAMPION_NAME, record)

    def _read(self) -> dict[str, Any]:
        path = self.models_dir / CHAMPION_NAME
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            return {"schema_version": 1, "version": None, "history": []}
        except ValueError as error:
            raise BundleMismatchError(f"{path} is not a JSON ({error}). Restore it from a backup.") from error
        if not isinstance(record, dict) or record.get("schema_version") != 1:
            raise BundleMismatchError(f"{path} is of another schema. Restore it from a backup.")
        return record
