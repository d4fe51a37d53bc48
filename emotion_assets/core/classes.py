"""The classes: their names, their order, and the folders that stand for them.

The five default emotions can be replaced by a file `classes.yaml` in the data root. Only ingest and feedback read it;
everything downstream takes the classes from the splits' manifest or from the model's.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

from emotion_assets.core.errors import UnusableDataError

EMOTIONS: Final = ("angry", "fear", "happy", "sad", "surprise")
"""The default classes."""
MIN_CLASSES: Final = 2

_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "angry": ("anger", "angr", "mad"),
    "contempt": ("contemptuous",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "happy": ("happiness", "joy", "joyful", "smile", "smiling"),
    "neutral": ("neutrality", "no emotion"),
    "sad": ("sadness", "unhappy"),
    "surprise": ("surprised", "suprise", "suprised", "surprize", "astonished"),
}
"""Folder names of public face sets, by emotion."""

_TITLES: Final[Mapping[str, str]] = {"fear": "afraid", "surprise": "surprised", "disgust": "disgusted"}
"""What completes \"This face looks …\", where that is not the name."""

_SEPARATORS: Final = re.compile(r"[\s_.-]+")
# `0_angry`, `3-happy`, `Happy (1)`, `happy2`, `sad - Copy`, `angry faces`.
_PREFIX: Final = re.compile(r"^\d+ (?=\D)")
_SUFFIX: Final = re.compile(r"(?: ?\(\d+\)| ?\d+| copy| faces?| images?| imgs?| photos?| pictures?)$")
_MAX_NAME_LENGTH: Final = 60
_FORBIDDEN: Final = re.compile(r"[/\\\x00-\x1f\x7f]|^\.|^feedback$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Classes in the order of every array, table and chart. A class index is a position in `names`."""

    names: tuple[str, ...]
    titles: tuple[str, ...]
    """Display names, as on the pages."""
    folders: Mapping[str, str]
    """The class of each folder name, normalized."""

    @classmethod
    def build(cls, names: tuple[str, ...], titles: Mapping[str, str], folders: Mapping[str, tuple[str, ...]]) -> Self:
        """Combine names with titles and further folder names; known emotions bring their synonyms.

        Raises:
            ValueError: a folder name stands for two classes.
        """
        own = {_normalize(name): name for name in names}
        found = dict(own)
        for name in names:
            for folder in folders.get(name, ()):
                if found.setdefault(_normalize(folder), name) != name:
                    raise ValueError(f"the folder {folder!r} stands for both {found[_normalize(folder)]} and {name}")
        for name in names:
            for words in ((emotion, *others) for emotion, others in _SYNONYMS.items()):
                if _normalize(name) in words:
                    for word in words:
                        found.setdefault(word, name)
        return cls(names, tuple(titles.get(name, _TITLES.get(name, name)) for name in names), found)

    def find(self, folder: str) -> str | None:
        """Return the class that a folder is named after, or None.

        Case, separators, numbers before and after, and a few words like `images` do not matter.
        """
        word = _normalize(folder)
        while (name := self.folders.get(word)) is None:
            shorter = _SUFFIX.sub("", _PREFIX.sub("", word))
            if shorter in (word, ""):
                return None
            word = shorter
        return name

    def resolve(self, name: str) -> str | None:
        """Return the class that a label from an earlier `classes.yaml` belongs to now, or None; folder names count."""
        return self.folders.get(_normalize(name))

    def names_other_class(self, folder: str) -> bool:
        """Return whether a folder is named after a known emotion that is none of these classes."""
        return self.find(folder) is None and _KNOWN_EMOTIONS.find(folder) is not None

    def closest(self, folder: str) -> str | None:
        """Return the class whose folder names resemble `folder`, or None."""
        found = difflib.get_close_matches(_normalize(folder), self.folders, n=1, cutoff=0.75)
        return self.folders[found[0]] if found else None

    def __str__(self) -> str:
        """List the names."""
        return ", ".join(self.names)


def raw_folder(name: str) -> str:
    """Return the name of the folder below `raw/` that the pipeline itself uses for a class: `happy` in `Happy/`."""
    first = name[:1].upper()
    return first + name[1:] if _normalize(first) == _normalize(name[:1]) else name


def read_classes(path: Path) -> ClassSet:
    """Read `classes.yaml`; the default emotions if there is no such file.

    The file is a list. An entry is a class name, or a mapping with `name`, and optionally `title` and `folders`.

    Raises:
        UnusableDataError: the file cannot be read, or does not describe at least two different classes.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _parse(entries)
    except FileNotFoundError:
        return DEFAULT_CLASSES
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UnusableDataError(
            f"{path} does not describe classes: {error}. List at least two in UTF-8, one per line, as `- happy` or "
            "`- {name: happy, title: Happy, folders: [joy]}`."
        ) from error


def _parse(entries: Any) -> ClassSet:
    if not isinstance(entries, list):
        raise ValueError("it is not a list")  # noqa: TRY004 -- one kind of error for a bad file
    titles: dict[str, str] = {}
    folders: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, title, extra = _parse_entry(entry)
        if _normalize(name) in map(_normalize, folders):
            raise ValueError(f"{name!r} occurs twice; case and separators do not count")
        if title:
            titles[name] = title
        folders[name] = extra
    if len(folders) < MIN_CLASSES:
        raise ValueError(f"it has {len(folders)}")
    return ClassSet.build(tuple(folders), titles, folders)


def _parse_entry(entry: Any) -> tuple[str, str, tuple[str, ...]]:
    """Return the name, the title (empty if there is none) and the further folder names of a class."""
    fields = entry if isinstance(entry, dict) else {"name": entry}
    if unknown := fields.keys() - {"name", "title", "folders"}:
        raise ValueError(f"{fields.get('name')!r} has the unknown key {min(map(str, unknown))!r}")
    name, title, extra = fields.get("name"), fields.get("title", ""), fields.get("folders", [])
    folders = extra if isinstance(extra, list) else [extra]
    for text in (name, title, *folders):
        if not isinstance(text, str):
            problem = f"{text!r} is not text; put it in quotes, and likewise yes, no, on and off"
            raise ValueError(problem)  # noqa: TRY004 -- as above
    for text in (name, *folders):
        if not text.strip() or len(text) > _MAX_NAME_LENGTH or _FORBIDDEN.search(text.strip()):
            raise ValueError(f"{text!r} cannot name a class and its folder")
    return unicodedata.normalize("NFC", str(name).strip()), str(title).strip(), tuple(folders)


def _normalize(folder: str) -> str:
    """Drop what people vary or cannot see: case (also Turkish), separators, forms of Unicode, and what is invisible."""
    text = "".join(each for each in unicodedata.normalize("NFKC", folder) if unicodedata.category(each) != "Cf")
    text = text.replace("\ufe0f", "").casefold().replace("i\u0307", "i").replace("ı", "i")
    return _SEPARATORS.sub(" ", text).strip()


DEFAULT_CLASSES: Final = ClassSet.build(EMOTIONS, {}, {})
_KNOWN_EMOTIONS: Final = ClassSet.build(tuple(_SYNONYMS), {}, {})
