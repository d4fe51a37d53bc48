"""Which model is accepted: `models/champion.json` names it and keeps the history of every decision."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from emotion_assets.core.bundle import MANIFEST_NAME, is_version
from emotion_assets.core.errors import BundleMismatchError, MissingModelError
from emotion_assets.core.files import write_json
from emotion_assets.steps.evaluation.decision import Decision

CHAMPION_NAME: Final = "champion.json"


@dataclass(frozen=True, slots=True)
class Registry:
    """The bundles below `models_dir` and the pointer to the accepted one."""

    models_dir: Path

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
        complete = (path.parent.name for path in self.models_dir.glob(f"*/{MANIFEST_NAME}"))
        return sorted(name for name in complete if is_version(name))

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
        """
        version = self.champion()
        if version is None:
            raise MissingModelError(
                f"No model is accepted yet ({self.models_dir / CHAMPION_NAME} names none). "
                "Run the job `retrain`, and read evaluation_report if its candidate was refused."
            )
        return self.models_dir / version

    def history(self) -> list[dict[str, Any]]:
        """Return every decision recorded so far, oldest first."""
        return list(self._read()["history"])

    def record(self, decision: Decision) -> None:
        """Append a decision to the history, and move the pointer if the candidate was accepted."""
        record = self._read()
        entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **decision.as_record()}
        record["history"].append(entry)
        if decision.is_accepted:
            record["version"] = decision.candidate
        write_json(self.models_dir / CHAMPION_NAME, record)

    def _read(self) -> dict[str, Any]:
        path = self.models_dir / CHAMPION_NAME
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            return {"schema_version": 1, "version": None, "history": []}
        except ValueError as error:
            raise BundleMismatchError(f"{path} is no JSON ({error}). Restore it from a backup.") from error
        if not isinstance(record, dict) or record.get("schema_version") != 1:
            raise BundleMismatchError(f"{path} is of another schema. Restore it from a backup.")
        return record
