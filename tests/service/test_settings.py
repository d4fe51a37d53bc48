from __future__ import annotations

from pathlib import Path

import pytest

from emotion_assets.core.errors import InvalidSettingError
from emotion_service.settings import Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each variable is a field's name with the prefix; lists may have spaces."""
    monkeypatch.setenv("EMOTION_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("EMOTION_WORKERS", "3")
    monkeypatch.setenv("EMOTION_TIMEOUT_SECONDS", "2.5")
    monkeypatch.setenv("EMOTION_STORE_IMAGES", "1")
    monkeypatch.setenv("EMOTION_TOKEN", "secret")
    monkeypatch.setenv("EMOTION_CORS_ORIGINS", "https://a.example, https://b.example/,")
    settings = Settings.load()

    assert (settings.data_dir, settings.workers, settings.timeout_seconds) == (tmp_path, 3, 2.5)
    assert settings.store_images
    assert settings.token.get_secret_value() == "secret"
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_every_setting_has_a_default_and_a_description(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The data root is made absolute, because BentoML changes the working directory."""
    monkeypatch.delenv("EMOTION_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)

    assert Settings.load().data_dir == tmp_path / "data"
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("WORKERS", ["many", "0", "-1", "nan", "inf", "1.5"]),
        ("RATE_PER_MINUTE", ["-1", "nan", "inf"]),
        ("IMAGE_RETENTION_DAYS", ["0", "1000000"]),
        ("STORE_IMAGES", ["maybe", "2"]),
    ],
)
def test_invalid_values_are_rejected(monkeypatch: pytest.MonkeyPatch, name: str, values: list[str]) -> None:
    """The message has the variable and the value."""
    for value in values:
        monkeypatch.setenv(f"EMOTION_{name}", value)
        with pytest.raises(InvalidSettingError, match=f"EMOTION_{name} is '{value}': Input should be"):
            Settings.load()


@pytest.mark.parametrize("token", ["two words", "schlüssel", "secret\n"])
def test_all_errors_are_listed_at_once_without_secrets(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """A token that no client could send is rejected, but not shown."""
    monkeypatch.setenv("EMOTION_TOKEN", token)
    monkeypatch.setenv("EMOTION_MAX_CONCURRENCY", "0")
    monkeypatch.setenv("EMOTION_TRACES_URL", "collector:4318?key=hunter2")

    with pytest.raises(
        InvalidSettingError,
        match=r"(?s)MAX_CONCURRENCY is '0'.*TOKEN: The token should.*TRACES_URL: The address should",
    ) as caught:
        Settings.load()
    assert token not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_token_is_not_shown() -> None:
    """Not even where settings are printed."""
    assert "secret" not in repr(Settings(token="secret"))
