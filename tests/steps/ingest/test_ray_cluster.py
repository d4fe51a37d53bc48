from __future__ import annotations

import sys

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.ingest.ray_cluster import connect


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnusableDataError, match="engine `ray` is not installed: pip install"):
        connect()


@pytest.mark.cluster
def test_a_cluster_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UnusableDataError, match="does not respond"):
        connect()


@pytest.mark.cluster
def test_a_client_of_a_cluster_is_told_to_join_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's client protocol hangs where steps ask for their own node."""
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(UnusableDataError, match="ray start --address=HOST:PORT --num-cpus=0"):
        connect()
