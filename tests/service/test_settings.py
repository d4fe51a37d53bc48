from __future__ import annotations

from pathlib import Path

import pytest

from emotion_assets.core.errors import InvalidSettingError
from emotion_service.packages import pinned_packages
from emotion_service.settings import Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each documented variable changes its setting."""
    monkeypatch.setenv("EMOTION_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("EMOTION_WORKERS", "3")
    monkeypatch.setenv("EMOTION_MAX_CONCURRENCY", "7")
    monkeypatch.setenv("EMOTION_TIMEOUT_SECONDS", "2.5")

    assert Settings.from_environment() == Settings(tmp_path, 3, 7, 2.5)


@pytest.mark.parametrize("value", ["", "many", "0", "-1", "nan", "inf", "1.5"])
def test_settings_reject_nonsense_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The message has the key and the value."""
    monkeypatch.setenv("EMOTION_WORKERS", value)

    with pytest.raises(InvalidSettingError, match="EMOTION_WORKERS"):
        Settings.from_environment()


def test_pinned_packages_hold_all_that_bentoml_needs() -> None:
    """The closure includes packages that only BentoML imports, each with one version."""
    pins = pinned_packages()
    names = [pin.partition("==")[0] for pin in pins]

    assert {"aiohttp", "cattrs", "opentelemetry-sdk", "onnxruntime"} <= set(names)
    assert len(names) == len(set(names))
    assert names == sorted(names)


def test_days_without_end_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no dates so far back."""
    monkeypatch.setenv("EMOTION_KEEP_DAYS", "1000000")

    with pytest.raises(InvalidSettingError, match=r"EMOTION_KEEP_DAYS is 1000000\.0.* up to 36,500"):
        Settings.from_environment()


def test_origins_may_have_spaces_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """As people write lists."""
    monkeypatch.setenv("EMOTION_CORS_ORIGINS", "https://a.example, https://b.example,")

    assert Settings.from_environment().cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("token", ["two words", "schlüssel", "secret\n"])
def test_a_token_that_no_client_could_send_is_rejected(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Without showing it."""
    monkeypatch.setenv("EMOTION_TOKEN", token)

    with pytest.raises(InvalidSettingError, match="EMOTION_TOKEN") as rejection:
        Settings.from_environment()
    assert token not in str(rejection.value)
