"""The gate's decision on a candidate. Separate from the gate, so that reading one needs no heavy import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

SCORES_NAME: Final = "scores.json"
"""In a model's report folder: its scores and the decision on it."""


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
        return cls(**{field.name: record[field.name] for field in fields(cls) if field.name in record})


def read_decision(report_dir: Path) -> Decision:
    """Read the decision from a model's evaluation report."""
    return Decision.from_record(json.loads((report_dir / SCORES_NAME).read_text())["gate"])
