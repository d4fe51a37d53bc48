"""Turn what the steps return into what the Dagster UI shows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

SIGNATURE_NAME = "folder_signature"
"""What `raw/` looked like, in the metadata of all that was made of it."""


def image(content: bytes, text: str) -> dg.MarkdownMetadataValue:
    """Show a PNG or WebP inline; keep it under 100 kB, because metadata stays in the event log permanently."""
    kind = "webp" if content[:4] == b"RIFF" else "png"
    return dg.MetadataValue.md(f"![{text}](data:image/{kind};base64,{base64.b64encode(content).decode()})")


def table(rows: Sequence[Mapping[str, str | int | float | bool]]) -> dg.MarkdownMetadataValue:
    """Show rows of equal keys as a table."""
    if not rows:
        return dg.MetadataValue.md("none")
    columns = list(rows[0])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(_cell(row[column]) for column in columns) for row in rows]
    return dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))


def _cell(value: str | float | bool) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|")


def ingested_as(instance: dg.DagsterInstance, upstream: dg.AssetKey) -> dict[str, str]:
    """Return the `folder_signature` of the ingest that `upstream` was made from, to be handed on; nothing if unknown.

    So it can be told from any asset which state of `raw/` it goes back to.
    """
    found = latest_metadata(instance, upstream).get(SIGNATURE_NAME)
    return {SIGNATURE_NAME: str(found.value)} if found else {}


def version_of(instance: dg.DagsterInstance, asset: dg.AssetKey) -> str | None:
    """Return the model version that the latest materialization of `asset` names; None if it names none."""
    found = latest_metadata(instance, asset).get("version")
    return str(found.value) if found else None


def latest_metadata(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return the metadata of the latest materialization; nothing if there is none, or if it was reported by hand."""
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        return {}
    return event.asset_materialization.metadata
