"""The pages that people see: one file each, with its style and its script."""

from __future__ import annotations

import json
from pathlib import Path

from emotion_assets.core.classes import EMOTIONS


def page(name: str) -> str:
    """Return a page of this folder, with the emotions that the model knows."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return text.replace("EMOTIONS_HERE", json.dumps(EMOTIONS))
