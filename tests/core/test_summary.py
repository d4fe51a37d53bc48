from __future__ import annotations

from emotion_assets.core.summary import Summary


def test_summaries_share_no_default() -> None:
    Summary().values["a"] = 1

    assert Summary().values == {}
