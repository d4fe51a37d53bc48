"""Images of the catalogue for people: class balance, samples, near-duplicates, label conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from emotion_assets.steps.ingest.export import different_images
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.report_images import contact_sheet, encode_svg, label_classes

_NUM_FACES: Final = 36
_NUM_GROUPS: Final = 12
_NUM_PER_GROUP: Final = 3
_MAX_NARROW: Final = 6
"""With more classes, the chart is wider."""


def catalogue_previews(catalogue_dir: Path, table: pd.DataFrame, emotions: Sequence[str]) -> dict[str, bytes]:
    """Draw the class balance (SVG) and contact sheets (WebP) of the published catalogue `table`.

    Returns:
        By name: `class_balance`, `faces_<emotion>`, and `near_duplicates` and `label_conflicts` where there are any.
    """
    accepted, is_conflicting = different_images(table), table["has_label_conflict"].astype(bool)
    conflicting = table[table["is_accepted"] & is_conflicting].drop_duplicates("content_hash")
    samples = {
        f"faces_{emotion}": sorted(accepted.loc[accepted["label"] == emotion, "content_hash"])[:_NUM_FACES]
        for emotion in emotions
    }
    is_clear = ~accepted["content_hash"].isin(conflicting["content_hash"])
    samples["near_duplicates"] = _sample_groups(accepted[is_clear], min_members=2)
    samples["label_conflicts"] = _sample_groups(conflicting, min_members=1)
    images = {"class_balance": _draw_class_balance(accepted, emotions)}
    with Store(catalogue_dir / STORE_NAME) as store:
        images |= {name: contact_sheet(store.read_pixels(hashes)) for name, hashes in samples.items() if hashes}
    return images


def _sample_groups(rows: pd.DataFrame, min_members: int) -> list[str]:
    """Return a few contents of each of the first groups; a content without near-duplicates is a group of its own."""
    names = rows["near_duplicate_group"].fillna(rows["content_hash"])
    groups = sorted(sorted(members) for _, members in rows.groupby(names)["content_hash"])
    shown = [members for members in groups if len(members) >= min_members][:_NUM_GROUPS]
    return [content_hash for members in shown for content_hash in members[:_NUM_PER_GROUP]]


def _draw_class_balance(accepted: pd.DataFrame, emotions: Sequence[str]) -> bytes:
    counts = accepted["label"].value_counts().reindex(list(emotions), fill_value=0)
    is_small = len(emotions) <= _MAX_NARROW
    figure = Figure(figsize=(5, 2.4) if is_small else (0.35 * len(emotions) + 2, 2.8))
    axes = figure.subplots()
    bars = axes.bar(range(len(emotions)), counts.to_numpy())
    axes.bar_label(bars, fmt="{:,.0f}", fontsize=None if is_small else 7)
    label_classes(axes, emotions)
    axes.set_ylabel("different images")
    axes.margins(y=0.15)
    return encode_svg(figure)
