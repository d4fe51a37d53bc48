"""Where labels are kept: the data root, which is a folder or in object storage."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from emotion_assets.core.files import sync_folder
from emotion_assets.core.remote import RemoteRoot
from emotion_service.settings import Settings


class LocalStorage:
    """Objects as files below `root`, which only their owner can read if their names begin with a dot."""

    def __init__(self, root: Path) -> None:
        """Use `root`; folders are created on demand."""
        self._root = root

    def create(self, key: str, content: bytes) -> None:
        """Write a file that does not exist yet, with a hard link: of two processes one creates it.

        Raises:
            FileExistsError: it exists.
            OSError: it cannot be written.
        """
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        mode = 0o600 if path.name.startswith(".") else 0o666
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike a rename, it fails if the file exists
            with contextlib.suppress(OSError):
                sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def read(self, key: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        return (self._root / key).read_bytes()

    def exists(self, key: str) -> bool:
        """Return whether there is such a file."""
        return (self._root / key).exists()

    def keys(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder; a missing folder is empty."""
        found = ((Path(parent).relative_to(self._root), names) for parent, _, names in os.walk(self._root / folder))
        return [f"{parent.as_posix()}/{name}" for parent, names in found for name in names]


Storage = LocalStorage | RemoteRoot
"""Objects by their keys, such as `feedback/ab/….json`."""


def open_storage(settings: Settings) -> Storage:
    """Return the storage of the service's data root."""
    if settings.remote_root:
        return RemoteRoot(settings.remote_root, settings.data_dir)
    return LocalStorage(settings.data_dir)
