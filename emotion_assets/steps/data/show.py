"""Pictures of the catalogue for a person to look at: classes, repeated photographs, conflicts, sizes."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.steps.data.catalogue import STORE_NAME
from emotion_assets.steps.data.gallery import contact_sheet
from emotion_assets.steps.data.store import Store

_NUM_FACES: Final = 36
_NUM_GROUPS: Final = 12
_PER_GROUP: Final = 3


def catalogue_pictures(catalogue_dir: Path, table: pd.DataFrame) -> dict[str, bytes]:
    """Draw the catalogue.

    Args:
        catalogue_dir: holds the store with the pixels.
        table: the published catalogue, one row a file.

    Returns:
        By name: a contact sheet of each emotion, of repeated photographs and of label conflicts where there
        are any (WebP), and charts of class balance and picture sizes (PNG).
    """
    accepted = table[table["is_accepted"]].drop_duplicates("content_hash")
    pictures = {"class_balance": _balance(accepted), "sizes": _sizes(accepted)}
    with Store(catalogue_dir / STORE_NAME) as store:

        def sheet(content_hashes: list[str]) -> bytes:
            return contact_sheet(np.stack(list(store.read_pixels(content_hashes))))

        for emotion in EMOTIONS:
            members = accepted.loc[accepted["label"] == emotion, "content_hash"].sort_values()
            if len(members):
                pictures[f"faces_{emotion}"] = sheet(list(members[:_NUM_FACES]))
        for name, rows in (
            ("near_duplicates", accepted[~accepted["has_label_conflict"]]),
            ("label_conflicts", accepted[accepted["has_label_conflict"]]),
        ):
            chosen = _members_of_groups(rows)
            if chosen:
                pictures[name] = sheet(chosen)
    return pictures


def _members_of_groups(rows: pd.DataFrame) -> list[str]:
    """Return the contents of the first groups, a few of each; a single content counts only if it is in conflict."""
    groups: dict[str, list[str]] = defaultdict(list)
    is_conflicting = rows["has_label_conflict"].astype(bool)
    names = rows["near_duplicate_group"].astype(object).where(rows["near_duplicate_group"].notna(), None)
    for content_hash, name, is_conflict in zip(rows["content_hash"], names, is_conflicting, strict=True):
        if name is not None or is_conflict:
            groups[name or content_hash].append(content_hash)
    shown = sorted(members for members in groups.values() if len(members) > 1 or is_conflicting.all())
    return [content_hash for members in shown[:_NUM_GROUPS] for content_hash in sorted(members)[:_PER_GROUP]]


def _balance(accepted: pd.DataFrame) -> bytes:
    counts = accepted["label"].value_counts().reindex(list(EMOTIONS), fill_value=0)
    figure = Figure(figsize=(5, 2.4))
    axes = figure.subplots()
    axes.bar_label(axes.bar(list(EMOTIONS), counts.to_numpy()), fmt="{:,.0f}")
    axes.set_ylabel("different pictures")
    axes.margins(y=0.15)
    return _png(figure)


def _sizes(accepted: pd.DataFrame) -> bytes:
    sides = accepted[["width_px", "height_px"]].min(axis=1).astype(float)
    figure = Figure(figsize=(5, 2.4))
    axes = figure.subplots()
    axes.hist(sides, bins=40)
    axes.set(xlabel="shorter side, px", ylabel="pictures")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, bbox_inches="tight")
    return buffer.getvalue()
