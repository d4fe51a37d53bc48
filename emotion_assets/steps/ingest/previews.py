"""Images of the catalogue for a person to look at: classes, repeated images, conflicts, sizes."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.contact_sheet import contact_sheet
from emotion_assets.steps.ingest.catalogue import STORE_NAME
from emotion_assets.steps.ingest.store import Store

_NUM_FACES: Final = 36
_NUM_GROUPS: Final = 12
_PER_GROUP: Final = 3
_CARD_WIDTH_PX: Final = 220
_CARD_HEIGHT_PX: Final = 42
_CARD_LETTERS: Final = 32


def catalogue_previews(catalogue_dir: Path, table: pd.DataFrame) -> dict[str, bytes]:
    """Draw the catalogue.

    Args:
        catalogue_dir: holds the store with the pixels.
        table: the published catalogue, one row a file.

    Returns:
        By name: a contact sheet of each emotion, of repeated images and of label conflicts where there
        are any (WebP), charts of class balance and image sizes, and cards of what was rejected (PNG).
    """
    accepted = table[table["is_accepted"]].drop_duplicates("content_hash")
    images = {"class_balance": _balance(accepted), "sizes": _sizes(accepted)}
    rejected = table[~table["is_accepted"]]
    if len(rejected):
        images["rejections"] = _rejections(rejected)
    with Store(catalogue_dir / STORE_NAME) as store:

        def sheet(content_hashes: list[str]) -> bytes:
            return contact_sheet(store.read_pixels(content_hashes))

        for emotion in EMOTIONS:
            members = accepted.loc[accepted["label"] == emotion, "content_hash"].sort_values()
            if len(members):
                images[f"faces_{emotion}"] = sheet(list(members[:_NUM_FACES]))
        for name, rows in (
            ("near_duplicates", accepted[~accepted["has_label_conflict"]]),
            ("label_conflicts", accepted[accepted["has_label_conflict"]]),
        ):
            chosen = _members_of_groups(rows)
            if chosen:
                images[name] = sheet(chosen)
    return images


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


def _rejections(rejected: pd.DataFrame) -> bytes:
    """Draw a card for each rejected file, the rarest reasons first: its pixels are what could not be had."""
    rarity = rejected["reason_code"].map(rejected["reason_code"].value_counts())
    shown = rejected.assign(rarity=rarity).sort_values(["rarity", "reason_code", "path"]).head(_NUM_FACES)
    num_columns = 4
    sheet = Image.new("L", (num_columns * _CARD_WIDTH_PX, -(-len(shown) // num_columns) * _CARD_HEIGHT_PX), 255)
    draw = ImageDraw.Draw(sheet)
    for number, (path, code) in enumerate(zip(shown["path"], shown["reason_code"], strict=True)):
        row, column = divmod(number, num_columns)
        left, top = column * _CARD_WIDTH_PX, row * _CARD_HEIGHT_PX
        draw.rectangle((left + 2, top + 2, left + _CARD_WIDTH_PX - 3, top + _CARD_HEIGHT_PX - 3), 235)
        name = path if len(path) <= _CARD_LETTERS else "…" + path[1 - _CARD_LETTERS :]
        draw.text((left + 8, top + 6), code.replace("_", " "), 0)
        draw.text((left + 8, top + 22), name.encode("latin-1", "replace").decode("latin-1"), 90)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _balance(accepted: pd.DataFrame) -> bytes:
    counts = accepted["label"].value_counts().reindex(list(EMOTIONS), fill_value=0)
    figure = Figure(figsize=(5, 2.4))
    axes = figure.subplots()
    axes.bar_label(axes.bar(list(EMOTIONS), counts.to_numpy()), fmt="{:,.0f}")
    axes.set_ylabel("different images")
    axes.margins(y=0.15)
    return _png(figure)


def _sizes(accepted: pd.DataFrame) -> bytes:
    sides = accepted[["width_px", "height_px"]].min(axis=1).astype(float)
    figure = Figure(figsize=(5, 2.4))
    axes = figure.subplots()
    axes.hist(sides, bins=40)
    axes.set(xlabel="shorter side, px", ylabel="images")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, bbox_inches="tight")
    return buffer.getvalue()
