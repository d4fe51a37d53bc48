"""A folder that changes while it is read: files are renamed, cut, extended and replaced by pipes and links."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path

from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import read_catalogue

TRANSIENT = {"vanished", "still_changing", "symbolic_link", "not_a_file", "failed_read"}
"""The last: a link took the place of a file since the folder was listed, and is not followed."""


class Churn(threading.Thread):
    """Changes random files of a folder until it is stopped, and remembers every content and path that was there."""

    def __init__(self, raw: Path, secret: Path, seed: int) -> None:
        super().__init__()
        self._paths = sorted(raw.rglob("*.jpg"))
        self._contents = [path.read_bytes() for path in self._paths]
        self._secret, self._rng = secret, random.Random(seed)
        self.hashes = set(map(sha256, self._contents))
        self.names = {str(path.relative_to(raw)) for path in self._paths}
        self._raw, self.num_changes = raw, 0
        self.is_stopped = threading.Event()

    def run(self) -> None:
        while not self.is_stopped.is_set():
            index = self._rng.randrange(len(self._paths))
            self._change(index, self._paths[index], self._rng.choice(["rename", "cut", "grow", "pipe", "link", "file"]))
            self.num_changes += 1

    def _change(self, index: int, path: Path, kind: str) -> None:
        if kind == "rename":
            target = path.with_name(f"renamed_{self.num_changes}.jpg")
            self.names.add(str(target.relative_to(self._raw)))
            self._paths[index] = path.rename(target)
        elif kind in {"cut", "grow"} and path.is_file() and not path.is_symlink():
            length = self._rng.randrange(path.stat().st_size + 1)
            content = path.read_bytes()[:length] if kind == "cut" else path.read_bytes() + bytes(length)
            # Both in one step, so that no other content is ever there.
            self.hashes.add(sha256(content))
            if kind == "cut":
                os.truncate(path, length)
            else:
                with path.open("ab", buffering=0) as file:
                    file.write(bytes(length))
        else:
            self._replace(path, kind, self._contents[index])

    def _replace(self, path: Path, kind: str, content: bytes) -> None:
        temporary = path.with_name(".new")
        if kind == "pipe":
            os.mkfifo(temporary)
        elif kind == "link":
            temporary.symlink_to(self._secret)
        else:
            temporary.write_bytes(content)
        temporary.replace(path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_an_ingest_of_a_changing_folder_ends(tmp_path: Path, face: bytes) -> None:
    """Each path is a row; what is accepted was there as a whole; nothing outside of the folder is read."""
    paths = DataPaths(tmp_path / "root")
    draw_dataset(paths, num_per_class=40, seed=8)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(face)
    churn = Churn(paths.raw, secret, seed=1)
    churn.start()
    try:
        for _ in range(3):
            report = ingest_images(paths, num_workers=1)
            table = read_catalogue(paths.catalogue)

            assert report.num_files <= len(table) + report.num_removed
            assert set(table["path"]) <= churn.names
            assert not table["path"].duplicated().any()
            assert set(table["content_hash"].dropna()) <= churn.hashes
            assert set(table.loc[table["content_hash"].isna(), "reason_code"]) <= TRANSIENT
    finally:
        churn.is_stopped.set()
        churn.join()
    ingest_images(paths, num_workers=1)
    settled = read_catalogue(paths.catalogue)

    assert churn.num_changes > 0
    assert sha256(face) not in churn.hashes
    assert set(settled["path"]) == {str(path.relative_to(paths.raw)) for path in paths.raw.rglob("*.jpg")}
    assert set(settled.loc[settled["content_hash"].isna(), "reason_code"]) <= {"symbolic_link", "not_a_file"}
