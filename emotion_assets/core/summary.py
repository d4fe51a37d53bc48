"""What a step tells people about its result, in plain values that any user interface can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Value = str | int | float | bool
Row = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers, tables, images and files of one result, each by its name and in the order to be shown."""

    values: dict[str, Value] = field(default_factory=dict)
    tables: dict[str, Sequence[Row]] = field(default_factory=dict)
    """Rows of equal keys."""
    texts: dict[str, str] = field(default_factory=dict)
    """Markdown."""
    lists: dict[str, Sequence[str]] = field(default_factory=dict)
    """Sentences, which may contain untrusted file names."""
    images: dict[str, bytes] = field(default_factory=dict)
    """SVG or WebP, each under 100 kB."""
    pages: dict[str, Path] = field(default_factory=dict)
    """Files below the reports folder that a browser can open."""
    files: dict[str, Path] = field(default_factory=dict)
