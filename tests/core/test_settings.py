from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from emotion_assets.core.errors import InvalidSettingError
from emotion_assets.core.settings import EmotionSettings


class Example(EmotionSettings):
    size: int = Field(3, ge=1)
    secret: SecretStr = Field(SecretStr(""), max_length=4)


def test_all_errors_at_once_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_SIZE", "0")
    monkeypatch.setenv("EMOTION_SECRET", "too long a secret")

    with pytest.raises(InvalidSettingError) as caught:
        Example.load()

    assert "EMOTION_SIZE is '0'" in str(caught.value)
    assert "EMOTION_SECRET:" in str(caught.value)
    assert "too long" not in str(caught.value)


def test_data_dir_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOTION_DATA_DIR", "somewhere")

    assert Example.load().paths.raw == tmp_path / "somewhere" / "raw"


def test_an_address_has_a_local_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each address its own, the same in every process."""
    monkeypatch.setenv("EMOTION_CACHE_DIR", str(tmp_path))
    copies = []
    for address in ("s3://bucket/one/", "s3://bucket/one", "s3://bucket/two"):
        monkeypatch.setenv("EMOTION_DATA_DIR", address)
        settings = Example.load()
        assert settings.remote_root == address.rstrip("/")
        assert settings.paths.raw_source == f"{address.rstrip('/')}/raw"
        copies.append(settings.data_dir)

    assert {path.parent.parent for path in copies} == {tmp_path}
    assert copies[0] == copies[1] != copies[2]


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose passes empty ones on."""
    monkeypatch.setenv("EMOTION_SIZE", "")
    monkeypatch.setenv("EMOTION_DATA_DIR", "")

    settings = Example.load()

    assert (settings.size, settings.data_dir.name) == (3, "data")


def test_the_home_folder_may_be_abbreviated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every shell expands a tilde behind an equals sign."""
    monkeypatch.setenv("EMOTION_DATA_DIR", "~/faces")

    assert Example.load().data_dir == Path.home() / "faces"
