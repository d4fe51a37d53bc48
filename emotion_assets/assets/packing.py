"""The bento asset: the accepted model, packed for serving.

A candidate that the gate rejected cannot get here: not in its own run, and not by materializing this asset alone.
"""

import dagster as dg

from emotion_assets.assets.evaluation import evaluation_report
from emotion_assets.assets.metadata import as_metadata
from emotion_assets.resources import Settings, code_version, git_commit, uses_data

_CHECKS = [
    dg.AssetCheckSpec("packed_model_passes_self_test", asset="emotion_bento", description="The packed model works."),
    dg.AssetCheckSpec(
        "bento_is_lean", asset="emotion_bento", description="The service's environment has no training packages."
    ),
]


@dg.asset(kinds={"python"}, code_version=code_version("packing"), deps=[evaluation_report], check_specs=_CHECKS)
@uses_data("models", "reports/evaluation")
def emotion_bento(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]  # a check needs it bare
    """The bento `emotion_service` with the accepted model, for `bentoml serve` and `bentoml containerize`."""
    from emotion_assets.steps.packing.bento import pack_champion
    from emotion_assets.steps.packing.mlflow_registry import register_champion

    packed = pack_champion(settings.paths, {"run_id": context.run.run_id, "git_commit": git_commit()})
    if settings.mlflow_model:
        register_champion(settings.paths.models / packed.version, settings.mlflow_model)
    foreign = packed.foreign_packages()
    results = [
        dg.AssetCheckResult(check_name=_CHECKS[0].name, passed=packed.passes_self_test()),
        dg.AssetCheckResult(
            check_name=_CHECKS[1].name, passed=not foreign, metadata={"foreign_packages": ", ".join(foreign) or "none"}
        ),
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(packed.version),
        metadata=as_metadata(packed.summary(), settings),
        check_results=results,
    )
