"""The data assets: what lies in `raw/`, and the splits made of it.

Reads images, leaves the catalogue, the ledger and the splits' arrays. Which images are accepted,
which are the same image and which split they go to is decided in `steps.data`.
"""

import dagster as dg
import pandas as pd

from emotion_assets.assets.metadata import SIGNATURE_NAME, image, ingested_as, table
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.contact_sheet import contact_sheet
from emotion_assets.resources import DataPaths, code_version
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import TABLE_NAME
from emotion_assets.steps.ingest.scan import folder_signature
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.splits import (
    LEDGER_NAME,
    leaking_pairs,
    make_splits,
    read_ledger,
    read_manifest,
    read_split,
)

_CODE_VERSION = code_version("data")
_NUM_SHOWN = 36
_MAX_REJECTED_FRACTION = 0.1


@dg.asset(group_name="emotions", kinds={"python", "file"}, code_version=_CODE_VERSION)
def raw_images(context: dg.AssetExecutionContext, places: DataPaths) -> dg.MaterializeResult[None]:
    """The labelled images in `raw/`, as a catalogue with one row for each file.

    Only files that are new since the last run are read. What cannot be used is listed with its reason;
    nothing is moved or deleted.
    """
    from emotion_assets.steps.ingest.previews import catalogue_previews

    # Taken before the walk: a file that arrives during it makes the folder look new to the sensor.
    signature, _ = folder_signature(places.raw_dir)
    report = ingest_images(
        places.raw_dir,
        places.catalogue_dir,
        splits=read_ledger(places.splits_dir / LEDGER_NAME),
        log=context.log.info,
    )
    catalogue = pd.read_parquet(places.catalogue_dir / TABLE_NAME)
    accepted = catalogue[catalogue["is_accepted"]]
    counts = accepted["label"].value_counts()
    rejected = catalogue[~catalogue["is_accepted"]]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.fingerprint),
        metadata={
            **{f"num_{emotion}": int(counts.get(emotion, 0)) for emotion in EMOTIONS},
            "num_files": report.num_files,
            "num_new": report.num_new,
            "num_cached": report.num_cached,
            "num_removed": report.num_removed,
            "num_decoded": report.num_decoded,
            "num_rejected": len(rejected),
            "num_label_conflicts": int(accepted["has_label_conflict"].sum()),
            "num_near_duplicate_groups": int(accepted["near_duplicate_group"].nunique()),
            "seconds": round(report.seconds, 2),
            "rejected": table(_rejections(rejected)),
            **{
                name: image(content, name)
                for name, content in catalogue_previews(places.catalogue_dir, catalogue).items()
            },
            "fingerprint": report.fingerprint,
            # Without it the sensor asks for another run, an hour later.
            **({} if report.num_to_retry else {SIGNATURE_NAME: signature}),
            "catalogue": dg.MetadataValue.path(places.catalogue_dir / TABLE_NAME),
        },
    )


def _rejections(rejected: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {"path": str(row.path), "code": str(row.reason_code), "reason": str(row.reason)}
        for row in rejected.head(_NUM_SHOWN).itertuples()
    ]


@dg.asset_check(asset=raw_images, description="Every emotion has at least one usable image.")
def every_class_has_images(places: DataPaths) -> dg.AssetCheckResult:
    """Fail when a class is empty: an empty class would be learnt as one that never occurs."""
    catalogue = pd.read_parquet(places.catalogue_dir / TABLE_NAME)
    counts = catalogue.loc[catalogue["is_accepted"], "label"].value_counts()
    missing = [emotion for emotion in EMOTIONS if not counts.get(emotion, 0)]
    return dg.AssetCheckResult(passed=not missing, metadata={"missing": ", ".join(missing) or "none"})


@dg.asset_check(asset=raw_images, description="At most a tenth of the files are rejected.")
def few_files_are_rejected(places: DataPaths) -> dg.AssetCheckResult:
    """Warn when much of a delivery is unusable, which points at a broken copy or a wrong folder."""
    catalogue = pd.read_parquet(places.catalogue_dir / TABLE_NAME)
    fraction = float((~catalogue["is_accepted"]).mean()) if len(catalogue) else 0.0
    return dg.AssetCheckResult(
        passed=fraction <= _MAX_REJECTED_FRACTION,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rejected_fraction": fraction},
    )


@dg.asset(group_name="emotions", kinds={"numpy", "dataset"}, code_version=_CODE_VERSION, deps=[raw_images])
def greyscale_splits(context: dg.AssetExecutionContext, places: DataPaths) -> dg.MaterializeResult[None]:
    """64×64 gray faces in train, val and test (80/10/10 of each emotion).

    An image keeps its split permanently, near-duplicates share one, and an image that carries two labels is
    left out.
    """
    ingest = ingested_as(context.instance, raw_images.key)
    report = make_splits(places.catalogue_dir, places.splits_dir)
    split = read_split(places.splits_dir, "train")
    order = split.class_indices.argsort(kind="stable")
    step = max(1, len(order) // _NUM_SHOWN)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.fingerprint),
        metadata={
            **{f"num_{name}": sum(report.counts[name].values()) for name in SPLITS},
            "num_new": report.num_new,
            "num_label_conflicts": report.num_label_conflicts,
            "num_spanning_splits": report.num_spanning,
            "counts": table([{"split": name, **report.counts[name]} for name in SPLITS]),
            "faces": image(contact_sheet(split.pixels[order[::step][:_NUM_SHOWN]]), "faces of the train split"),
            "fingerprint": report.fingerprint,
            "splits": dg.MetadataValue.path(places.splits_dir),
            **ingest,
        },
    )


@dg.asset_check(
    asset=greyscale_splits,
    blocking=True,
    description="No image, re-encoded, cropped or mirrored, is in two splits.",
)
def splits_share_no_image(places: DataPaths) -> dg.AssetCheckResult:
    """Compare all stored pixels of each split with those of the others, from scratch."""
    pairs = leaking_pairs([read_split(places.splits_dir, name) for name in SPLITS])
    return dg.AssetCheckResult(
        passed=not pairs,
        metadata={"pairs": table([{"first": first, "second": second} for first, second in pairs])},
    )


@dg.asset_check(asset=greyscale_splits, description="Every split holds every emotion.")
def splits_hold_every_class(places: DataPaths) -> dg.AssetCheckResult:
    """Fail when an emotion is missing from a split, whose scores would then say nothing about it."""
    counts = read_manifest(places.splits_dir)["counts"]
    missing = [f"{emotion} in {name}" for name in SPLITS for emotion in EMOTIONS if not counts[name][emotion]]
    return dg.AssetCheckResult(passed=not missing, metadata={"missing": ", ".join(missing) or "none"})
