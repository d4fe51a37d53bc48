"""Charts of an asset's numbers over its materializations, for its page in the UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from emotion_assets.assets.metadata import image

_MAX_POINTS: Final = 40
_MAX_DATES: Final = 6


@dataclass(frozen=True, slots=True)
class Highlight:
    """The materializations to mark in a chart: those whose metadata `name` is `value`."""

    name: str
    value: bool
    title: str


def with_history(
    context: dg.AssetExecutionContext,
    metadata: dict[str, dg.RawMetadataValue],
    names: Sequence[str],
    *,
    unit: str,
    highlight: Highlight | None = None,
) -> dict[str, dg.RawMetadataValue]:
    """Return `metadata` below a chart of its values of these names over 40 materializations, this one included.

    Before the second materialization there is no chart: one point is no history. Where a materialization lacks a value,
    its line has a gap.
    """
    records = context.instance.fetch_materializations(context.asset_key, limit=_MAX_POINTS - 1).records
    events = [(record.timestamp, record.asset_materialization) for record in reversed(records)]
    points: list[_Point] = [
        (time, {name: value.value for name, value in event.metadata.items()}) for time, event in events if event
    ]
    # What is reported by hand has no values.
    points = [(time, values) for time, values in points if any(name in values for name in names)]
    if not points:
        return metadata
    chart = _draw([*points, (datetime.now(UTC).timestamp(), metadata)], names, unit, highlight)
    return {"history": image(chart, "history")} | metadata


_Point = tuple[float, Mapping[str, Any]]


def _draw(points: Sequence[_Point], names: Sequence[str], unit: str, highlight: Highlight | None) -> bytes:
    # Matplotlib is slow to import.
    from matplotlib.figure import Figure

    from emotion_assets.steps.report_images import encode_svg

    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    for name in names:
        values = [values.get(name, float("nan")) for _, values in points]
        axes.plot(values, marker="o", markersize=4, label=name.rpartition("/")[2])
    if highlight:
        marked = [number for number, (_, values) in enumerate(points) if values.get(highlight.name) is highlight.value]
        for number in marked:
            axes.axvspan(number - 0.4, number + 0.4, color="tab:red", alpha=0.15, linewidth=0)
        axes.set_title(f"red: {highlight.title}" if marked else "", fontsize=9)
    step = -(-len(points) // _MAX_DATES)
    dates = [datetime.fromtimestamp(time, UTC).strftime("%d %b\n%H:%M") for time, _ in points[::step]]
    axes.set_xticks(range(0, len(points), step), dates)
    axes.set(xlabel="UTC", ylabel=unit)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    return encode_svg(figure)
