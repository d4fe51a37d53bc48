"""The evaluation asset: the newest model's scores beside the champion's, and the gate's decision.

The rules of the gate are in `steps.evaluation.gate`.
"""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from emotion_assets.assets.history import Highlight, with_history
from emotion_assets.assets.metadata import as_metadata, latest_metadata
from emotion_assets.assets.training import trained_cnn
from emotion_assets.resources import Settings, code_version, uses_data


class EvaluationRunConfig(dg.Config):
    """What a person may decide about an evaluation."""

    force_reason: str | None = Field(
        None, description="Accepts the candidate even if the gate rejects it. Recorded with the gate's reasons."
    )


@dg.asset(
    kinds={"report", "scikitlearn"},
    code_version=code_version("registry", "evaluation"),
    deps=[trained_cnn, "external_images"],
)
@uses_data("catalogue", "splits", "external", "reports/label_audit", writes=("models", "reports/evaluation"))
def evaluation_report(
    context: dg.AssetExecutionContext, settings: Settings, config: EvaluationRunConfig
) -> dg.MaterializeResult[None]:
    """The scores of the newest model on unseen test images, and whether it becomes the champion.

    A rejection is a normal outcome: the champion stays, and the reasons are shown here and in the report.
    """
    from emotion_assets.steps.evaluation.candidate import evaluate_candidate

    evaluation = evaluate_candidate(settings.paths, force_reason=config.force_reason)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(evaluation.decision.served or "none"),
        metadata=with_history(
            context,
            as_metadata(evaluation.summary(), settings),
            ("test/accuracy", "test/macro_f1"),
            unit="score on unseen images",
            highlight=Highlight("is_accepted", value=False, title="rejected by the gate"),
        ),
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "candidate_is_not_worse",
            asset=evaluation_report,
            blocking=True,
            description="The candidate is not worse than the champion, or passes the minimums if it is the first.",
        )
    ]
)
@uses_data("models", "reports/evaluation")
def candidate_is_not_worse(context: dg.AssetCheckExecutionContext, settings: Settings) -> Iterator[dg.AssetCheckResult]:
    """Stop the run when the gate rejected a new candidate; the champion continues to be served.

    A candidate that was rejected before, because nothing new was trained, only warns.
    """
    from emotion_assets.steps.registry.registry import Registry, read_decision

    found = latest_metadata(context.instance, evaluation_report.key)
    version = str(found["version"].value) if "version" in found else Registry(settings.paths.models).candidate()
    decision = read_decision(settings.paths.evaluation_report(version))
    is_new = "is_new" not in found or bool(found["is_new"].value)
    reasons = " ".join(decision.reasons)
    yield dg.AssetCheckResult(
        passed=decision.is_accepted,
        severity=dg.AssetCheckSeverity.ERROR if is_new else dg.AssetCheckSeverity.WARN,
        description=reasons,
        metadata={"candidate": decision.candidate, "champion": decision.champion or "none"},
    )
    if not decision.is_accepted and is_new:
        # Dagster's own message would only name the check.
        raise dg.Failure(f"The gate rejected {decision.candidate}: {reasons}", allow_retries=False)
    if not decision.is_accepted:
        context.log.warning("Nothing new was trained, and %s was rejected before: %s", decision.candidate, reasons)
