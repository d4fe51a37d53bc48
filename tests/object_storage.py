"""An S3 server on 127.0.0.1: moto, which keeps objects in memory and honours conditions as S3 does."""

from __future__ import annotations

import logging
import secrets
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    put_object, lock = S3Response.put_object, threading.Lock()

    def put_one_at_a_time(self: S3Response) -> Any:
        """S3 checks a condition and writes in one step; moto may let two writers with one condition pass."""
        with lock:
            return put_object(self)

    S3Response.put_object = put_one_at_a_time
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    S3Response.put_object = put_object


@pytest.fixture
def s3_root(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a new and empty data root; the environment has the credentials."""
    bucket = f"emotions-{secrets.token_hex(4)}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{bucket}", method="PUT")).close()
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{bucket}/root"


def turn_versions_on(s3_root: str, s3_server: str) -> None:
    """Let the bucket of a data root keep earlier versions of its objects, as it may instead of back-ups."""
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    address = f"{s3_server}/{s3_root.split('/')[2]}?versioning"
    request = urllib.request.Request(address, body, {"Content-Type": "application/xml"}, method="PUT")
    urllib.request.urlopen(request).close()


@pytest.fixture
def upload(s3_root: str) -> Callable[[Path], None]:
    """Return what copies a local data root to `s3_root`."""
    from emotion_assets.core.remote import open_store

    def copy(root: Path) -> None:
        store = open_store(s3_root)
        for path in root.rglob("*"):
            if path.is_file():
                store.put(path.relative_to(root).as_posix(), path)

    return copy
