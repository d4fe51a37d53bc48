"""Altered copies of bundles."""

from __future__ import annotations

import json
from pathlib import Path

from emotion_assets.core.bundle import MANIFEST_NAME, manifest_checksum


def change_manifest(bundle_dir: Path, **changes: object) -> None:
    """Change fields of a manifest, as if it had been written so."""
    path = bundle_dir / MANIFEST_NAME
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record | {"checksum": manifest_checksum(record)}))
