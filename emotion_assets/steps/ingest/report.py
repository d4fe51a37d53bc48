"""The result of an ingest, and its summary for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import pandas as pd

from emotion_assets.core.layout import DataPaths, is_feedback_image
from emotion_assets.core.summary import Row, Summary
from emotion_assets.steps.ingest.export import TABLE_NAME, different_images, path_text, read_catalogue
from emotion_assets.steps.ingest.near_duplicates import describe_search
from emotion_assets.steps.ingest.scan import FolderState, SkipCode
from emotion_assets.steps.ingest.store import STORE_NAME, Store

_NUM_ROWS_SHOWN: Final = 36
_COUNTS: Final = ("num_files", "num_new", "num_cached", "num_removed", "num_decoded", "num_to_retry")


@dataclass(slots=True)
class IngestReport:
    """Counts of files of one walk over `raw/`."""

    paths: DataPaths
    emotions: tuple[str, ...]
    """The classes, in order."""
    num_new: int = 0
    num_cached: int = 0
    num_removed: int = 0
    num_decoded: int = 0
    num_to_retry: int = 0
    """Files that the next run may be able to read though nothing in the folder changes."""
    seconds: float = 0.0
    fingerprint: str = ""
    """Changes with the accepted images and their labels, not with names, order or times."""
    state: FolderState | None = None
    """What this walk saw; None if files are to be retried."""

    @property
    def num_files(self) -> int:
        """All files of the walk, new or known."""
        return self.num_new + self.num_cached

    def summary(self) -> Summary:
        """Summarize this ingest and the catalogue that it published."""
        with Store(self.paths.catalogue / STORE_NAME) as store:
            unused, num_compared = unused_files(store), store.num_compared()
        # Matplotlib is slow to import.
        from emotion_assets.steps.ingest.previews import catalogue_previews  # noqa: PLC0415

        catalogue = read_catalogue(self.paths.catalogue)
        accepted = catalogue[catalogue["is_accepted"]]
        is_other_class = catalogue["reason_code"] == SkipCode.OTHER_CLASS
        rejected = catalogue[~catalogue["is_accepted"] & ~is_other_class]
        num_rejected = int(rejected["num_files"].sum())
        conflicts = accepted[accepted["has_label_conflict"].astype(bool)]
        contents = different_images(catalogue)
        counts, group_sizes = contents["label"].value_counts(), contents["near_duplicate_group"].value_counts()
        return Summary(
            values={
                **{count_key(emotion): int(counts.get(emotion, 0)) for emotion in self.emotions},
                **{name: getattr(self, name) for name in _COUNTS},
                "num_rejected": num_rejected,
                "rejected_fraction": num_rejected / max(1, int(catalogue.loc[~is_other_class, "num_files"].sum())),
                "num_other_class": int(catalogue.loc[is_other_class, "num_files"].sum()),
                "num_warnings": int(accepted["warning"].notna().sum()),
                "num_label_conflicts": len(conflicts),
                "conflict_fraction": len(conflicts) / max(1, len(accepted)),
                "num_labels_set_aside": sum(is_feedback_image(str(path).encode()) for path in conflicts["path"]),
                "num_near_duplicate_groups": int((group_sizes > 1).sum()),
                "near_duplicate_search": describe_search(num_compared),
                "seconds": round(self.seconds, 2),
                "fingerprint": self.fingerprint,
            },
            lists={"not_used": unused} if unused else {},
            tables={
                "rejected": _first_rows(
                    catalogue[~catalogue["is_accepted"]], ["path", "num_files", "reason_code", "reason"]
                ),
                "label_conflicts": _first_rows(conflicts, ["path", "label", "near_duplicate_group"]),
                "warnings": _first_rows(accepted[accepted["warning"].notna()], ["path", "warning"]),
            },
            images=catalogue_previews(self.paths.catalogue, catalogue, self.emotions),
            files={"catalogue": self.paths.catalogue / TABLE_NAME},
        )


def _first_rows(table: pd.DataFrame, columns: list[str]) -> list[Row]:
    rows = table[columns].head(_NUM_ROWS_SHOWN).fillna("").itertuples(index=False)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def count_key(emotion: str) -> str:
    """Return the name of a class's number of images, such as `images/happy`."""
    return f"images/{emotion}"


def unused_files(store: Store) -> list[str]:
    """Describe why files of `raw/` are not used: each reason with its number and the path of one file."""
    numbers: Counter[str] = Counter()
    examples: dict[str, tuple[bytes, str]] = {}
    rejected = ((path, code, reason, 1) for path, *_, code, reason, _ in store.file_rows() if code is not None)
    for path, code, reason, number in (*store.skipped_files(), *rejected):
        numbers[code] += number
        examples.setdefault(code, (path, reason))
    return [
        f"{number:,} with {code}, such as raw/{path_text(examples[code][0])}: {examples[code][1]}"
        for code, number in numbers.most_common()
    ]
