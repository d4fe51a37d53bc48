"""A plain user, to whom the kernel refuses files; root may read everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.export import read_catalogue
from tests.faults.helpers import INGEST

PLAIN_USER = 65534
AS_PLAIN_USER = ["setpriv", f"--reuid={PLAIN_USER}", f"--regid={PLAIN_USER}", "--clear-groups"]
MAY_SWITCH = (
    os.geteuid() == 0
    and subprocess.run([*AS_PLAIN_USER, sys.executable, "-c", ""], capture_output=True, check=False).returncode == 0
)
pytestmark = pytest.mark.skipif(not MAY_SWITCH, reason="needs root, and a Python that all users may run")


@pytest.fixture
def own_root(drawn: Path) -> Iterator[DataPaths]:
    """The drawn faces in a data root of the plain user, who may not enter pytest's own folders."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        shutil.copytree(drawn, root)
        for path in (Path(folder), root, *root.rglob("*")):
            shutil.chown(path, PLAIN_USER, PLAIN_USER)
        yield DataPaths(root)


def test_unreadable_files_are_listed_once(own_root: DataPaths) -> None:
    """A file and a folder that may not be read are a row each, all else is accepted, and a remedy is named."""
    file = min((own_root.raw / "Angry").rglob("*.jpg"))
    file.chmod(0)
    (own_root.raw / "Sad").chmod(0)

    subprocess.run([*AS_PLAIN_USER, sys.executable, "-W", "ignore", "-c", INGEST, str(own_root.root)], check=True)

    table = read_catalogue(own_root.catalogue).set_index("path")
    unreadable = table[table["reason_code"] == "unreadable_file"]
    assert set(unreadable.index) == {str(file.relative_to(own_root.raw)), "Sad"}
    assert all("Check its permissions" in reason for reason in unreadable["reason"])
    assert table["is_accepted"].sum() == 79
    assert len(table) == 81
