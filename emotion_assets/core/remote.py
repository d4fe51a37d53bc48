"""A data root in object storage: steps work on a local copy of its folders, and exchange snapshots of them.

A folder of the root is a set of objects that are never changed, and one small object, its *head*, that names them. To
commit is to write a new head on the condition that the old one is still there (compare and swap), so a reader sees one
whole state or another, and of two hosts that changed the same file one is refused and repeats its step. What only grows
and has one writer for each object, such as predictions and labels, needs no head: it is listed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from emotion_assets.core.errors import ChangedElsewhereError, InvalidSettingError
from emotion_assets.core.files import atomic_file, files_below, locked, write_atomically, write_json

HEAD_NAME: Final = "_head.json"
_STATE_DIR: Final = ".remote"
_NUM_THREADS: Final = 16
_CHUNK_BYTES: Final = 8 * 2**20
_MAX_ATTEMPTS: Final = 5
_REQUEST_TIME: Final = "5 minutes"
"""For 5 MB on a slow link; a host that does not respond is noticed within seconds all the same."""
_TAG: Final = "\n"
"""Divides an object's key from its version, where objects may change."""


def is_remote(root: str | os.PathLike[str]) -> bool:
    """Return whether a data root is an address such as `s3://bucket/path`, rather than a folder."""
    return "://" in os.fspath(root)


def local_root(text: str) -> Path:
    """Return a data root that a command works on, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is in object storage.
    """
    if is_remote(text):
        raise argparse.ArgumentTypeError(
            f"{text} is in object storage. Run the jobs list_models, rollback and clean_models in the Dagster UI "
            "instead; the bucket's own versions and lifecycle rules replace backup and retention."
        )
    return Path(text)


def open_store(url: str) -> Any:
    """Return obstore's store for an address; credentials and endpoint come from the usual variables of its cloud.

    Raises:
        InvalidSettingError: obstore is not installed, or does not know such an address.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise InvalidSettingError(
            f"The data root {url} is in object storage, which needs obstore: pip install -e '.[cluster]' -c "
            "constraints.txt"
        ) from error
    allows_http = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://")
    try:
        return from_url(url, client_options={"allow_http": allows_http, "timeout": _REQUEST_TIME})
    except BaseError as error:
        raise InvalidSettingError(f"The data root {url} cannot be opened: {first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class _SyncedFile:
    """A file of the local copy as it was when it and its object were the same."""

    key: str
    """Key of the object, which is never changed."""
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class _Head:
    """Which objects a folder consists of."""

    keys: dict[str, str]
    """By path."""
    dropped: tuple[str, ...] = ()
    """Objects that the last commit replaced: others may still be reading them."""
    version: dict[str, str] = field(default_factory=dict)
    """Of the head itself, by which a conditional write names it; empty if nothing was committed yet."""


class RemoteRoot:
    """A data root in object storage, such as `s3://bucket/path`, with a local copy that processes of a host share."""

    def __init__(self, url: str, local: Path) -> None:
        self.url, self.local = url, local
        self._store = open_store(url)

    def checkout(self, folder: str, only: tuple[str, ...] = ("",)) -> None:
        """Bring the local copy of a folder up to date.

        What was changed here and not committed stays, unless another host has committed the same file since. Only
        paths that begin with one of `only` are fetched.
        """
        with _os_errors(), self._locked(folder) as state:
            self._retry(lambda: self._fetch(folder, self._read_head(folder), state, only))

    def commit(self, folder: str) -> None:
        """Make the local copy of a folder the remote state, together with what others committed to other files.

        Raises:
            ChangedElsewhereError: another host has committed one of the files that were changed here, which `checkout`
                will replace.
        """
        with _os_errors(), self._locked(folder) as state:
            for _ in range(_MAX_ATTEMPTS):
                head = self._read_head(folder)
                changed = {path for path in self._paths(folder) if not self._is_unchanged(folder, path, state)}
                removed = {path for path in state if not (self.local / folder / path).exists()}
                known = {path: each.key for path, each in state.items()}
                for path in changed | removed:
                    if head.keys.get(path) != known.get(path):
                        raise ChangedElsewhereError(
                            f"Another host has changed {folder}/{path} of {self.url} meanwhile. Materialize the asset "
                            "again: it continues from there."
                        )
                if not changed and not removed & head.keys.keys():
                    return
                if self._write_head(folder, head, changed, removed, state):
                    return
        raise ChangedElsewhereError(f"Other hosts keep changing {folder} of {self.url}. Materialize the asset again.")

    def fetch(self, folder: str) -> None:
        """Bring the local copy of a folder without a head up to date: one that others only add to or remove from."""
        with _os_errors(), self._locked(folder) as state:
            self._retry(lambda: self._fetch(folder, _Head(self._list(folder)), state, ("",)))

    def fetch_files(self, keys: Iterable[str]) -> None:
        """Bring single files up to date, which may be missing."""
        for key in keys:
            path = self.local / key
            try:
                content = self.read(key)
            except FileNotFoundError:
                path.unlink(missing_ok=True)
            else:
                if not path.exists() or path.read_bytes() != content:
                    write_atomically(path, content)

    def publish(self, folder: str) -> None:
        """Upload what is new in the local copy of a folder without a head, and remove what was removed there."""
        with _os_errors(), self._locked(folder) as state:
            for path in self._paths(folder):
                if not self._is_unchanged(folder, path, state):
                    content = (self.local / folder / path).read_bytes()
                    result = self._store.put(f"{folder}/{path}", content)
                    state[path] = self._describe(folder, path, _listed_key(f"{folder}/{path}", result["e_tag"]))
            for path in [path for path in state if not (self.local / folder / path).exists()]:
                self._store.delete(f"{folder}/{path}")
                del state[path]

    def fetch_names(self, folder: str, name: str) -> set[str]:
        """Mirror the names of the files in the subfolders `*/name` of a folder locally; new files are empty.

        People remove and move objects there, and a fresh host knows none. Returns their keys.
        """
        with _os_errors():
            classes = self._store.list_with_delimiter(f"{folder}/")["common_prefixes"]
        keys = {key for each in classes for key in self.keys(f"{each.rstrip('/')}/{name}")}
        for path in self.local.glob(f"{folder}/*/{name}/*"):
            if path.relative_to(self.local).as_posix() not in keys:
                path.unlink()
        for key in keys:
            (self.local / key).parent.mkdir(parents=True, exist_ok=True)
            (self.local / key).touch()
        return keys

    def add(self, folder: str, name: str, known: Container[str] = ()) -> None:
        """Upload the local files of the subfolders `*/name` of a folder that are not `known` to be in the root."""
        for path in sorted(self.local.glob(f"{folder}/*/{name}/*")):
            key = path.relative_to(self.local).as_posix()
            if key not in known:
                with contextlib.suppress(FileExistsError):
                    self.create(key, path.read_bytes())

    def read(self, key: str) -> bytes:
        """Return an object.

        Raises:
            FileNotFoundError: there is none.
        """
        with _os_errors():
            return bytes(self._store.get(key).bytes())

    def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        with contextlib.suppress(FileNotFoundError), _os_errors():
            self._store.head(key)
            return True
        return False

    def keys(self, folder: str) -> list[str]:
        """Return the keys of all objects below a folder."""
        with _os_errors():
            return [each["path"] for batch in self._store.list(folder) for each in batch]

    def create(self, key: str, content: bytes) -> None:
        """Write an object that does not exist yet.

        Raises:
            FileExistsError: it exists.
            OSError: the storage does not respond.
        """
        with _os_errors():
            self._store.put(key, content, mode="create")

    @staticmethod
    def _retry(fetch: Callable[[], None]) -> None:
        """Fetch again if an object was deleted meanwhile, by two newer commits."""
        for _ in range(_MAX_ATTEMPTS - 1):
            with contextlib.suppress(FileNotFoundError):
                return fetch()
        return fetch()

    def _list(self, folder: str) -> dict[str, str]:
        """Return the keys of a folder without a head by path, without private files and markers of empty folders."""
        found = [each for batch in self._store.list(f"{folder}/") for each in batch]
        parents = {str(parent) for each in found for parent in PurePosixPath(each["path"]).parents}
        return {
            each["path"].removeprefix(f"{folder}/"): _listed_key(each["path"], each["e_tag"])
            for each in found
            if each["path"] not in parents | {folder} and "/." not in each["path"]
        }

    def _read_head(self, folder: str) -> _Head:
        try:
            found = self._store.get(f"{folder}/{HEAD_NAME}")
        except FileNotFoundError:
            return _Head({})
        record = json.loads(bytes(found.bytes()))
        if any(PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts for path in record["keys"]):
            raise OSError(f"{folder}/{HEAD_NAME} of {self.url} names files elsewhere. Restore an earlier version.")
        # S3 and Azure compare the tag, Google the version.
        version = {name: found.meta[name] for name in ("e_tag", "version") if found.meta[name]}
        return _Head(record["keys"], tuple(record["dropped"]), version)

    def _write_head(
        self, folder: str, head: _Head, changed: set[str], removed: set[str], state: dict[str, _SyncedFile]
    ) -> bool:
        """Upload what was changed and write the head; return False if there is a newer one."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        uploaded: dict[str, _SyncedFile] = {}
        try:
            for path in sorted(changed):
                key = f"{folder}/{path}.{secrets.token_hex(8)}"
                uploaded[path] = self._describe(folder, path, key)
                # Two parts at once: on a slow link, twelve would all time out.
                self._store.put(key, self.local / folder / path, max_concurrency=2)
        except Exception:
            self._delete(each.key for each in uploaded.values())
            raise
        keys = {path: key for path, key in head.keys.items() if path not in removed}
        keys |= {path: each.key for path, each in uploaded.items()}
        dropped = sorted(set(head.keys.values()) - set(keys.values()))
        content = json.dumps({"keys": keys, "dropped": dropped}, indent=1).encode()
        try:
            self._store.put(f"{folder}/{HEAD_NAME}", content, mode=head.version or "create")
        except (AlreadyExistsError, PreconditionError):
            # If the answer to the first attempt was lost, the head that refuses the second one is our own.
            if self._read_head(folder).keys != keys:
                self._delete(each.key for each in uploaded.values())
                return False
        state |= uploaded
        for path in removed:
            state.pop(path, None)
        self._delete(head.dropped)
        return True

    def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self._store.delete(key)

    def _fetch(self, folder: str, head: _Head, state: dict[str, _SyncedFile], only: tuple[str, ...]) -> None:
        wanted = {
            path: key
            for path, key in head.keys.items()
            if path.startswith(only)
            and not (path in state and state[path].key == key and (self.local / folder / path).exists())
        }
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            list(pool.map(lambda path: self._download(folder, path, wanted[path], state), wanted))
        for path in [path for path in state if path not in head.keys]:
            (self.local / folder / path).unlink(missing_ok=True)
            del state[path]

    def _download(self, folder: str, path: str, key: str, state: dict[str, _SyncedFile]) -> None:
        target = self.local / folder / path
        for suffix in ("-wal", "-shm"):
            # Leftover SQLite journals of the old file would be applied to the new one.
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        with atomic_file(target) as file:
            for chunk in self._store.get(key.partition(_TAG)[0]).stream(min_chunk_size=_CHUNK_BYTES):
                file.write(chunk)
        # Now, so that this file does not look new here if a later one fails.
        state[path] = self._describe(folder, path, key)

    def _describe(self, folder: str, path: str, key: str) -> _SyncedFile:
        status = (self.local / folder / path).stat()
        return _SyncedFile(key, status.st_size, status.st_mtime_ns)

    def _is_unchanged(self, folder: str, path: str, state: Mapping[str, _SyncedFile]) -> bool:
        return path in state and self._describe(folder, path, state[path].key) == state[path]

    def _paths(self, folder: str) -> list[str]:
        """Return the paths of the local files; locks and temporary files have names that begin with a dot."""
        root = self.local / folder
        found = (path.relative_to(root) for path in files_below(root))
        return [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]

    @contextlib.contextmanager
    def _locked(self, folder: str) -> Iterator[dict[str, _SyncedFile]]:
        """Lock the local copy against other processes of this host; yield what is known of it, and keep that."""
        name = folder.replace("/", "-")
        path = self.local / _STATE_DIR / f"{name}.json"
        with locked(path.with_suffix(".lock")):
            record = json.loads(path.read_text()) if path.exists() else {}
            state = {key: _SyncedFile(**value) for key, value in record.items()}
            before = dict(state)
            try:
                yield state
            finally:
                if state != before:
                    write_json(path, {key: asdict(value) for key, value in state.items()})


def _listed_key(path: str, e_tag: str | None) -> str:
    return f"{path}{_TAG}{plain_tag(e_tag)}"


def plain_tag(e_tag: str | None) -> str:
    """Return an ETag as all clouds list it: Azure quotes it only where an object is read."""
    return (e_tag or "").strip('"')


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Raise obstore's errors as the matching OSErrors; for a missing object it raises FileNotFoundError itself."""
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except AlreadyExistsError as error:
        raise FileExistsError(first_line(error)) from error
    except BaseError as error:
        raise OSError(first_line(error)) from error


def first_line(error: Exception) -> str:
    """Return what obstore's error says, without its pages of detail."""
    return str(error).partition("\n")[0]
