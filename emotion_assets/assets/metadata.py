"""Turn what the steps return into what the Dagster UI shows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import dagster as dg


def picture(content: bytes, text: str) -> dg.MarkdownMetadataValue:
    """Show a PNG or WebP inline; keep it under 100 kB, because metadata stays in the event log for ever."""
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
