"""What the gate decided about a candidate. Kept apart from the gate, so that reading it needs no heavy import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's verdict with its numbers; a rejection is a normal outcome, not an error."""

    candidate: str
    champion: str | None
    is_accepted: bool
    reasons: list[str]
    """Why it was rejected, or the one sentence why it was accepted."""
    accuracy_difference: float | None
    """Candidate minus champion."""
    p_value: float | None
    """One-sided exact McNemar test of "the candidate is worse"."""
    num_only_candidate_right: int | None
    num_only_champion_right: int | None
    latency_ms: float | None = None
    """Median time of one face on one thread."""
    force_reason: str | None = None
    """Why a person accepted it although the gate rejected; `reasons` keeps what the gate said."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read what `as_record` returned, whatever was added to it."""
        return cls(**{field.name: record[field.name] for field in fields(cls) if field.name in record})

    def as_record(self) -> dict[str, Any]:
        """Return the decision for JSON."""
        return asdict(self)
