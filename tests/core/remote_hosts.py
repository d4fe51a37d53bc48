"""Hosts that share a data root in object storage, for the tests of it."""

from __future__ import annotations

from pathlib import Path

from emotion_assets.core.remote import RemoteRoot


def host(url: str, tmp_path: Path, name: str) -> RemoteRoot:
    return RemoteRoot(url, tmp_path / name)


def write(root: RemoteRoot, path: str, text: str) -> None:
    target = root.local / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def files(root: RemoteRoot, folder: str) -> dict[str, str]:
    paths = [path for path in (root.local / folder).rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(root.local / folder).as_posix(): path.read_text() for path in paths}


def commit(root: RemoteRoot, path: str, text: str) -> None:
    write(root, path, text)
    root.commit(path.partition("/")[0])


def objects(root: RemoteRoot, folder: str) -> set[str]:
    """Return the objects of a folder but for its head, without their random endings."""
    return {key.rpartition(".")[0] for key in root.keys(folder) if not key.endswith("_head.json")}
