"""The bento asset: the accepted model, packed to be served.

Reads `champion.json` and the bundle that it names, leaves a model and a bento in BentoML's stores. A
candidate that the gate rejected cannot get here: not in its own run, nor by materializing this asset alone.
"""

from pathlib import Path

import dagster as dg

from emotion_assets.assets.evaluation import evaluation_report
from emotion_assets.core.bundle import read_manifest
from emotion_assets.resources import DataPaths, code_version, git_commit

_FOREIGN = ("torch", "dagster", "lightning", "evidently")


@dg.asset(group_name="emotions", kinds={"python"}, code_version=code_version("packing"), deps=[evaluation_report])
def emotion_bento(context: dg.AssetExecutionContext, places: DataPaths) -> dg.MaterializeResult[None]:
    """The bento `emotion_service` with the accepted model, ready for `bentoml serve` and `bentoml containerize`."""
    from emotion_assets.steps.packing.bento import build_bento, read_labels

    labels = {"run_id": context.run.run_id, "git_commit": git_commit()}
    # Nobody rolls back between the choice and the end of the pack, which makes it the latest.
    with places.registry.locked():
        bundle_dir = places.registry.require_champion()
        manifest = read_manifest(bundle_dir)
        labels |= {"data_fingerprint": manifest.data_fingerprint[:12]}
        packed = build_bento(bundle_dir, labels | read_labels(places.reports_dir / "evaluation" / manifest.version))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(packed.version),
        metadata={
            "version": packed.version,
            "tag": f"emotion_service:{packed.version}",
            "was_built": packed.was_built,
            "size_bytes": packed.size_bytes,
            "num_packages": len(set(packed.requirements)),
            "serve": dg.MetadataValue.md("`make serve`"),
            "bento": dg.MetadataValue.path(packed.bento_dir),
        },
    )


@dg.asset_check(asset=emotion_bento, description="The packed model gives its known answer.")
def packed_model_passes_self_test(places: DataPaths) -> dg.AssetCheckResult:
    """Load the model from BentoML's store and run its self-test."""
    import bentoml

    from emotion_assets.core.classifier import Classifier
    from emotion_assets.steps.packing.bento import MODEL_NAME

    champion = places.registry.require_champion().name
    classifier = Classifier(Path(bentoml.models.get(f"{MODEL_NAME}:latest").path))
    classifier.self_test()
    return dg.AssetCheckResult(
        passed=classifier.version == champion, metadata={"packed": classifier.version, "champion": champion}
    )


@dg.asset_check(asset=emotion_bento, description="The service's environment is free of the training stack.")
def bento_is_lean() -> dg.AssetCheckResult:
    """Fail when the bento would install torch, Dagster, Lightning or Evidently."""
    import bentoml

    from emotion_assets.steps.packing.bento import BENTO_NAME

    bento = bentoml.bentos.get(f"{BENTO_NAME}:latest")
    requirements = bento.path_of("env/python/requirements.txt")
    with open(requirements) as file:
        found = [line.strip() for line in file if line.startswith(_FOREIGN)]
    return dg.AssetCheckResult(passed=not found, metadata={"foreign_packages": ", ".join(found) or "none"})
