"""Turn what the steps return into Dagster metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from emotion_assets.core.summary import Summary, Value
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.report_images import data_uri

DATA_VERSION_TAG: Final = "dagster/data_version"
"""Dagster's own tag of a materialization."""
_NUM_SEARCHED: Final = 20
_MARKDOWN: Final = re.compile(r"([\\*\[\]<|~]|(?<!\w)_|_(?!\w))")


def as_metadata(summary: Summary, settings: PipelineSettings) -> dict[str, dg.RawMetadataValue]:
    """Return a summary as metadata: what matters first, numbers flat, so that Dagster plots their history."""
    metadata: dict[str, dg.RawMetadataValue] = {name: _shorten(value) for name, value in summary.values.items()}
    metadata |= {name: dg.MetadataValue.md(text) for name, text in summary.texts.items()}
    metadata |= {name: bullets(sentences) for name, sentences in summary.lists.items()}
    metadata |= {name: image(content, name) for name, content in summary.images.items()}
    metadata |= {name: table(rows) for name, rows in summary.tables.items()}
    metadata |= {name: dg.MetadataValue.url(settings.link(path)) for name, path in summary.pages.items()}
    metadata |= {f"{name}_file": dg.MetadataValue.path(path) for name, path in summary.pages.items()}
    return metadata | {name: dg.MetadataValue.path(path) for name, path in summary.files.items()}


def image(content: bytes, text: str) -> dg.MarkdownMetadataValue:
    """Show an SVG or WebP image inline; keep it under 100 kB, because metadata stays in the event log."""
    return dg.MetadataValue.md(f"![{text}]({data_uri(content)})")


def bullets(sentences: Sequence[str]) -> dg.MarkdownMetadataValue:
    """Show sentences as a list."""
    return dg.MetadataValue.md("\n".join(f"- {_escape(_one_line(sentence))}" for sentence in sentences))


def table(rows: Sequence[Mapping[str, Value]]) -> dg.MarkdownMetadataValue:
    """Show rows of equal keys as a Markdown table."""
    if not rows:
        return dg.MetadataValue.md("none")
    columns = list(rows[0])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(_cell(row[column]) for column in columns) for row in rows]
    return dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))


def _cell(value: Value) -> str:
    return _escape(_one_line(str(_shorten(value))))


def _escape(text: str) -> str:
    """Escape Markdown: a file may be named like an image whose address starts a run when the page is opened."""
    return _MARKDOWN.sub(r"\\\1", text)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _shorten(value: Value) -> Value:
    """Return a float with four digits, which are all that people read; the reports have the others."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def check_result(problem: str, *, is_error: bool, **arguments: Any) -> dg.AssetCheckResult:
    """Return the result of a check: failed if there is a problem; only an error stops the run."""
    severity = dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=not problem, severity=severity, description=_escape(problem) or None, **arguments)


def latest_metadata(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return the metadata of the latest materialization that has any: one reported by hand in the UI has none."""
    records = instance.fetch_materializations(asset, limit=_NUM_SEARCHED).records
    found = (record.asset_materialization.metadata for record in records if record.asset_materialization)
    return next(filter(None, found), {})
