from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.core.errors import InvalidSettingError
from emotion_assets.resources import PipelineSettings, code_version, git_commit


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EMOTION_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    settings = PipelineSettings.load()

    assert settings.paths.root == tmp_path / "data"
    assert settings.sensor_interval_seconds == 60
    assert settings.load_run_config() == {}
    assert settings.link(settings.paths.drift_reports / "x.html") == "http://localhost:3002/drift/x.html"


@pytest.mark.parametrize("text", ["1m", "-1", "nan", "inf"])
def test_invalid_settings_are_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The definitions read them on loading, so the message is all that people see."""
    monkeypatch.setenv("EMOTION_QUIET_SECONDS", text)

    with pytest.raises(InvalidSettingError, match=f"EMOTION_QUIET_SECONDS is '{text}'"):
        PipelineSettings.load()


def test_alert_addresses_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_ALERT_URLS", "json://user:hush@host/  slack://hush")
    settings = PipelineSettings.load()

    assert [url.get_secret_value() for url in settings.alert_urls] == ["json://user:hush@host/", "slack://hush"]
    assert "hush" not in repr(settings)


def test_run_config_of_sensors(tmp_path: Path) -> None:
    """A file that cannot be read, or is not a mapping, is named; nothing is requested then."""
    path = tmp_path / "run.yaml"
    settings = PipelineSettings(run_config=path)
    with pytest.raises(dg.Failure, match="cannot be read"):
        settings.load_run_config()
    path.write_text("7")
    with pytest.raises(dg.Failure, match="not a mapping"):
        settings.load_run_config()
    path.write_text("ops: {trained_cnn: {config: {preset: quick}}}")

    assert settings.load_run_config() == {"ops": {"trained_cnn": {"config": {"preset": "quick"}}}}


def test_tags_in_the_run_config_run_nothing(tmp_path: Path) -> None:
    """The file is data; a tag that names a function is an error."""
    path, proof = tmp_path / "run.yaml", tmp_path / "proof"
    path.write_text(f"ops: !!python/object/apply:os.system ['touch {proof}']\n")

    with pytest.raises(dg.Failure, match="cannot be read: could not determine a constructor"):
        PipelineSettings(run_config=path).load_run_config()

    assert not proof.exists()


def test_code_version_depends_on_the_packages() -> None:
    assert code_version("drift") == code_version("drift") != code_version("packing")


def test_git_commit_is_named_or_unknown() -> None:
    assert git_commit()
