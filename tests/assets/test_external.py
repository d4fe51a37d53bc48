from __future__ import annotations

from emotion_assets.assets import external


def test_the_service_writes_what_the_bento_predicts() -> None:
    """Every external asset says who writes it; the prediction log follows the bento."""
    specs = [external.image_files, external.external_images, external.labels, external.prediction_log]

    assert all(spec.description and spec.group_name == external.GROUP for spec in specs)
    assert [dep.asset_key.to_user_string() for dep in external.prediction_log.deps] == ["emotion_bento"]
