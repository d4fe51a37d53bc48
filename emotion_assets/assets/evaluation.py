"""The evaluation asset: the newest model's scores beside the accepted one's, and the gate's decision.

Reads the test split and the bundles, leaves a report and moves `champion.json` if the candidate is
accepted. The rules of the gate are in `steps.evaluation.compare`.
"""

import dagster as dg
from pydantic import Field

from emotion_assets.assets.metadata import image, table, version_of
from emotion_assets.assets.training import trained_cnn
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.resources import DataPaths, code_version
from emotion_assets.steps.registry.registry import CARD_NAME


class EvaluationRunConfig(dg.Config):
    """What a person may decide about an evaluation."""

    force_reason: str | None = Field(
        None,
        description="Accepts the candidate even if the gate rejects it. Recorded permanently, with what the gate said.",
    )


@dg.asset(
    group_name="emotions", kinds={"report", "scikitlearn"}, code_version=code_version("evaluation"), deps=[trained_cnn]
)
def evaluation_report(
    context: dg.AssetExecutionContext, places: DataPaths, config: EvaluationRunConfig
) -> dg.MaterializeResult[None]:
    """How good the newest model is on test faces it never saw, and whether it takes the champion's place.

    A rejection is a normal outcome: the champion stays, and the reasons stand here and in the report.
    """
    from emotion_assets.steps.evaluation.candidate import DataPaths, evaluate_candidate

    judgement = evaluate_candidate(
        DataPaths(places.splits_dir, places.catalogue_dir, places.external_dir, places.reports_dir),
        places.registry,
        force_reason=config.force_reason,
        log=context.log.info,
    )
    scores, decision, report_dir = judgement.scores, judgement.decision, judgement.report_dir
    between = judgement.evaluation.intervals
    return dg.MaterializeResult(
        data_version=dg.DataVersion(decision.candidate),
        metadata={
            **scores.flat("test"),
            "version": decision.candidate,
            "champion": places.registry.champion() or "none",
            "is_accepted": decision.is_accepted,
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in decision.reasons)),
            **({"force_reason": decision.force_reason} if decision.force_reason else {}),
            "num_test_faces": scores.num_images,
            "latency_ms": round(decision.latency_ms or 0, 2),
            "intervals": table(
                [
                    {"score": name, "from": between[name][0], "to": between[name][1]}
                    for name in ("accuracy", "macro_f1", "log_loss", "calibration_error")
                ]
            ),
            "by_emotion": table(
                [
                    {
                        "emotion": emotion,
                        "precision": scores.precision[emotion],
                        "recall": scores.recall[emotion],
                        "recall from": between[f"recall_{emotion}"][0],
                        "to": between[f"recall_{emotion}"][1],
                        "F1": scores.f1[emotion],
                        "faces": scores.support[emotion],
                    }
                    for emotion in EMOTIONS
                ]
            ),
            "slices": table(
                [
                    {"part": f"{part.family}: {part.name}", "accuracy": part.accuracy, "faces": part.num_images}
                    for part in judgement.evaluation.slices
                ]
            ),
            **{name: image(content, name) for name, content in judgement.images.items()},
            "model_card": dg.MetadataValue.path(places.models_dir / decision.candidate / CARD_NAME),
            "report": dg.MetadataValue.url(places.link(report_dir / "report.html")),
            "report_file": dg.MetadataValue.path(report_dir / "report.html"),
        },
    )


@dg.asset_check(
    asset=evaluation_report,
    blocking=True,
    description="The candidate is not worse than the accepted model, or above the floors if it is the first.",
)
def candidate_is_not_worse(context: dg.AssetCheckExecutionContext, places: DataPaths) -> dg.AssetCheckResult:
    """Stop the run when the gate rejected the candidate; the champion continues serving."""
    from emotion_assets.steps.evaluation.report import read_decision

    version = version_of(context.instance, evaluation_report.key) or places.registry.candidate()
    gate = read_decision(places.reports_dir / "evaluation" / version)
    return dg.AssetCheckResult(
        passed=bool(gate["is_accepted"]),
        metadata={
            "candidate": gate["candidate"],
            "champion": gate["champion"] or "none",
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in gate["reasons"])),
        },
    )
