"""Write imported images below `raw/`, with the folders that they came in."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from emotion_assets.core.classes import read_classes
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import MAX_IMAGE_BYTES
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.scan import is_junk_name

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_MAX_NAME_BYTES: Final = 240
_UNSAFE: Final = re.compile(r"^\.{0,2}$|[/\\\x00-\x1f\x7f]")


class Importer:
    """Writes files to `raw/<name>/…`; those of a held-out part to `external/<name>/…`.

    Existing files stay, so a second import completes an interrupted one; a different file of the same name is written
    beside it. A file appears under its name once it is complete.
    """

    def __init__(self, paths: DataPaths, name: str, held_out: str | None = None) -> None:
        """Start an import, with a folder or part `held_out`, such as `test`, that must never be trained on."""
        self.classes = read_classes(paths.classes)
        self._roots = (paths.raw / name, paths.external / name)
        self._held_out_roots = self._roots
        """Those of the images that were held out last."""
        self._held_out_name = held_out
        # As people type it: `test/`, `./archive/test`, `"Test "`.
        self._held_out = _plain((held_out or "").replace("\\", "/").rstrip("/ ").rpartition("/")[2])
        self._holds_all_out = bool(self._held_out) and _plain(name) == self._held_out
        self.num_also_in_raw = 0
        self.num_new = self.num_existing = self.num_held_out = 0
        self.left_out: Counter[str] = Counter()
        """Numbers of entries that were not written, by reason."""

    def wants(self, parts: Sequence[str]) -> Path | None:
        """Return where to write the image with this path in the source; None if it is left out."""
        if not parts or any(_UNSAFE.search(part) for part in parts):
            self.left_out["a path that leads out of the folder, or has control characters"] += 1
        elif any(is_junk_name(os.fsencode(part)) for part in parts):
            return None
        elif max(len(os.fsencode(part)) for part in parts) > _MAX_NAME_BYTES:
            self.left_out[f"a name of more than {_MAX_NAME_BYTES} bytes"] += 1
        elif not parts[-1].casefold().endswith(IMAGE_SUFFIXES):
            self.left_out[f"a name that does not end in {', '.join(IMAGE_SUFFIXES)}"] += 1
        else:
            raw, external = self._choose_roots(parts)
            is_held_out = self._holds_all_out or (bool(self._held_out) and self._held_out in map(_plain, parts[:-1]))
            if not is_held_out and external.joinpath(*parts).exists():
                self.left_out["held out in external/ by an earlier import"] += 1
                return None
            if is_held_out:
                self._held_out_roots = raw, external
            self.num_held_out += is_held_out
            self.num_also_in_raw += is_held_out and raw.joinpath(*parts).exists()
            return (external if is_held_out else raw).joinpath(*parts)
        return None

    def _choose_roots(self, parts: Sequence[str]) -> tuple[Path, Path]:
        """Return where a path goes: `mask.zip` with the folders `mask` and `no mask` must not be a folder `mask`."""
        raw, external = self._roots
        if any(map(self.names_class, parts[:-1])) and self.names_class(raw.name):
            name = f"import of {raw.name}"
            return raw.with_name(name), external.with_name(name)
        return raw, external

    def names_class(self, folder: str) -> bool:
        """Return whether a folder is named after a class or another known emotion."""
        return self.classes.find(folder) is not None or self.classes.names_other_class(folder)

    def write(self, path: Path, content: bytes) -> None:
        """Write a file that `wants` named.

        Raises:
            UnusableDataError: the disk is full, or the folder cannot be written to.
        """
        if len(content) > MAX_IMAGE_BYTES:
            self.left_out[f"more than {MAX_IMAGE_BYTES:,} bytes"] += 1
            return
        try:
            if path.is_file() and path.read_bytes() != content:
                # Two deliveries, or two folders that differ in case, may use one name for different images.
                path = path.with_name(f"{path.stem}-{hashlib.sha256(content).hexdigest()[:8]}{path.suffix}")
            if path.is_file():
                self.num_existing += 1
                return
            temporary = path.with_name(f".{path.name}.part")
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            self.left_out["a file whose name is also that of a folder"] += 1
            return
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                self.left_out["a path that is too long for this disk"] += 1
                return
            raise UnusableDataError(
                f"{path} cannot be written ({error.strerror}). Check the disk and the folder, and import again."
            ) from error
        self.num_new += 1

    def report(self) -> Iterable[str]:
        """Yield a line for each number that is not 0."""
        yield f"{self.num_new:,} images are new, {self.num_existing:,} were there before."
        raw, external = self._held_out_roots
        if self.num_held_out:
            yield f"{self.num_held_out:,} of them are held out in {external}."
        elif self._held_out:
            yield f"No folder is called {self._held_out_name}, so nothing was held out."
        if self.num_also_in_raw:
            yield f"{self.num_also_in_raw:,} of those are in {raw} as well: remove them there."
        for reason, number in self.left_out.most_common():
            yield f"{number:,} entries were left out: {reason}."


def _plain(name: str) -> str:
    """Return the name of a part without what people and systems vary: case, spaces, dashes, forms of Unicode."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
