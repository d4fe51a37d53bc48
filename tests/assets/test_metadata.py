from __future__ import annotations

import dagster as dg

from emotion_assets.assets.metadata import as_metadata, bullets, image, latest_metadata, table
from emotion_assets.core.summary import Summary
from emotion_assets.resources import PipelineSettings


def test_a_summary_becomes_metadata(settings: PipelineSettings) -> None:
    """Numbers stay flat, pages are linked and named as files."""
    page = settings.paths.drift_reports / "x" / "report.html"
    summary = Summary(
        values={"accuracy": 0.5}, tables={"rows": [{"a": 1}]}, images={"faces": b"<svg/>"}, pages={"report": page}
    )

    metadata = as_metadata(summary, settings)

    assert metadata["accuracy"] == 0.5
    assert metadata["report"] == dg.MetadataValue.url("http://localhost:3002/drift/x/report.html")
    assert metadata["report_file"] == dg.MetadataValue.path(page)
    assert "data:image/svg+xml;base64," in str(metadata["faces"].value)


def test_tables_escape_bars_and_shorten_numbers() -> None:
    assert table([]).value == "none"
    assert table([{"a": "x|y", "b": 1 / 3}]).value.splitlines()[2] == "| x\\|y | 0.3333 |"


def test_names_of_files_are_no_markdown() -> None:
    """An image in a description would be fetched when the page is opened, and could start a run."""
    name = "Happy/![x](/graphql?query=mutation).png"

    assert table([{"path": name}]).value.splitlines()[2] == "| Happy/!\\[x\\](/graphql?query=mutation).png |"
    assert bullets([f"raw/{name}", "a\n# <b> a_b _c_"]).value.splitlines() == [
        "- raw/Happy/!\\[x\\](/graphql?query=mutation).png",
        "- a # \\<b> a_b \\_c\\_",
    ]


def test_images_name_their_type() -> None:
    assert "image/webp" in str(image(b"RIFF1234WEBP", "faces").value)


def test_a_materialization_reported_by_hand_is_passed_over() -> None:
    """It has no metadata, and must not hide an open incident."""
    key = dg.AssetKey("drift_report")
    with dg.DagsterInstance.ephemeral() as instance:
        assert latest_metadata(instance, key) == {}
        instance.report_runless_asset_event(dg.AssetMaterialization(key))
        assert latest_metadata(instance, key) == {}
        instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata={"state": "ok"}))
        instance.report_runless_asset_event(dg.AssetMaterialization(key))
        assert latest_metadata(instance, key)["state"].value == "ok"
