import base64

import dagster as dg

from emotion_assets.assets.history import Highlight, with_history


class Scores(dg.Config):
    accuracy: float | None
    is_accepted: bool


@dg.asset
def report(context: dg.AssetExecutionContext, config: Scores) -> dg.MaterializeResult[None]:
    metadata: dict[str, dg.RawMetadataValue] = {"is_accepted": config.is_accepted}
    if config.accuracy is not None:
        metadata["accuracy"] = config.accuracy
    rejected = Highlight("is_accepted", value=False, title="rejected")
    return dg.MaterializeResult(
        metadata=with_history(context, metadata, ["accuracy"], unit="score", highlight=rejected)
    )


def materialize(
    instance: dg.DagsterInstance, accuracy: float | None, *, is_accepted: bool = True
) -> dict[str, dg.MetadataValue[object]]:
    config = dg.RunConfig({"report": Scores(accuracy=accuracy, is_accepted=is_accepted)})
    result = dg.materialize([report], instance=instance, run_config=config)
    (event,) = result.asset_materializations_for_node("report")
    return dict(event.metadata)


def count_red_spans(metadata: dict[str, dg.MetadataValue[object]]) -> int:
    encoded = str(metadata["history"].value).partition("base64,")[2].rstrip(")")
    return base64.b64decode(encoded).count(b"fill: #d62728")


def test_the_chart_begins_with_the_second_materialization() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert list(materialize(instance, 0.5)) == ["is_accepted", "accuracy"]

        second = materialize(instance, 0.6)

        assert list(second) == ["history", "is_accepted", "accuracy"]
        assert len(str(second["history"].value)) < 100_000
        assert count_red_spans(second) == 0


def test_highlighted_materializations_are_red() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, 0.5)
        one = materialize(instance, 0.4, is_accepted=False)
        two = materialize(instance, 0.3, is_accepted=False)

        assert (count_red_spans(one), count_red_spans(two)) == (1, 2)


def test_a_missing_value_and_an_event_reported_by_hand_leave_gaps() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("report"))
        assert "history" not in materialize(instance, None)
        assert "history" not in materialize(instance, 0.5)

        assert "history" in materialize(instance, None)
        assert "history" in materialize(instance, 0.5)
