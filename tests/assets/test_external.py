from __future__ import annotations

from emotion_assets.assets import external
from emotion_assets.definitions import defs


def test_the_service_writes_what_the_bento_predicts() -> None:
    """Every external asset says who writes it; the prediction log follows the bento."""
    specs = [external.image_files, external.external_images, external.labels, external.prediction_log]
    graph = defs.resolve_asset_graph()

    assert all(spec.description and graph.get(spec.key).group_name == "emotions" for spec in specs)
    assert [dep.asset_key.to_user_string() for dep in external.prediction_log.deps] == ["emotion_bento"]
