from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.bundle import REFERENCE_NAME, read_manifest, write_manifest
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.features import FEATURE_COLUMNS
from emotion_assets.core.files import file_sha256
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.layout import LABEL_REQUEST_NAME
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.drift.check import DataPaths, check_drift, deployed_model, record_notified
from emotion_assets.steps.drift.outliers import OutlierDetector
from emotion_assets.steps.drift.prediction_log import predict_folder, read_log
from emotion_assets.steps.drift.report import write_drift_report
from emotion_assets.steps.drift.verdict import judge
from emotion_assets.steps.drift.windows import DriftSource, Window, newest_report
from emotion_assets.steps.feedback.labels import REQUEST_NAME
from emotion_assets.steps.registry.registry import Registry


def logged(count: int, seed: int, shift: float = 0.0, happy: float = 0.2) -> pd.DataFrame:
    """Logged values that look like those of some model, `brightness` moved by `shift`."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.normal(0.5, 0.1, count) for name in FEATURE_COLUMNS[:-1]})
    table["brightness"] += shift
    weights = [happy if emotion == "happy" else (1 - happy) / 4 for emotion in EMOTIONS]
    table["emotion"] = rng.choice(EMOTIONS, count, p=weights)
    return table


WINDOW = Window("", "", is_new=True, alarms_in_a_row=0, is_incident=False)


def places(root: Path, unlabelled: Path) -> DataPaths:
    return DataPaths(root / "predictions", root / "feedback", unlabelled, root / "reports")


def test_equal_sources_seldom_raise_an_alarm() -> None:
    """Over 200 windows without drift, each tier raises at most a few alarms."""
    reference = logged(3000, seed=0)
    verdicts = [judge(logged(200, seed=seed), reference) for seed in range(1, 201)]

    assert sum(verdict.has_input_drift for verdict in verdicts) <= 6
    assert sum(verdict.has_prediction_drift for verdict in verdicts) <= 6


def test_darker_images_are_named() -> None:
    """A change of the inputs alone warns, and the cause is said in words."""
    verdict = judge(logged(200, seed=1, shift=-0.1), logged(2000, seed=0))

    assert verdict.state == "input_drift"
    assert "darker" in verdict.cause
    assert verdict.shifts["brightness"] == pytest.approx(-1, abs=0.3)


def test_other_answers_are_named() -> None:
    """A change of the answers is the stronger state."""
    verdict = judge(logged(200, seed=1, happy=0.7), logged(2000, seed=0))

    assert verdict.state == "prediction_drift"
    assert not verdict.has_input_drift
    assert "happy" in verdict.cause


@pytest.mark.parametrize("count", [0, 1, 49])
def test_too_few_images_say_nothing(count: int) -> None:
    """Below fifty images there is no verdict either way."""
    verdict = judge(logged(count, seed=1, shift=-0.4), logged(2000, seed=0))

    assert verdict.state == "too_few"
    assert str(count) in verdict.cause


def test_constant_columns_and_missing_emotions_break_nothing() -> None:
    """A camera that sends one and the same image is a change, not an error."""
    current = logged(60, seed=1)
    current.loc[:, current.columns[:-1]] = 0.5
    current["emotion"] = "sad"

    assert judge(current, logged(500, seed=0)).state == "prediction_drift"


def write_log(
    folder: Path,
    rows: pd.DataFrame,
    version: str = "v1",
    name: str = "20260101T000000-a-1.jsonl",
    start: int = 0,
    year: int = 2026,
) -> Path:
    path = folder / "2026-01-01" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows.to_dict("records")):
        record = {
            "time": f"{year}-01-01T{start + number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000+00:00",
            "prediction_id": f"{version}-{number}-{name}",
            "model_version": version,
            "emotion": row["emotion"],
            "probabilities": {emotion: row[f"p_{emotion}"] for emotion in EMOTIONS},
            "features": {key: value for key, value in row.items() if not key.startswith("p_") and key != "emotion"},
        }
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines))
    return path


def test_read_log_passes_over_torn_and_foreign_lines(tmp_path: Path) -> None:
    """A last line cut by a kill, junk and other models' rows do not count."""
    path = write_log(tmp_path, logged(5, seed=0))
    write_log(tmp_path, logged(3, seed=0), version="v2", name="20260101T010000-b-2.jsonl")
    whole = path.read_text()
    path.write_text('{"half": \n' + "null\n[1]\n" + whole[:-40])

    table = read_log(tmp_path, "v1", limit=100)

    assert len(table) == 4
    assert list(table["time"]) == sorted(table["time"])
    assert set(FEATURE_COLUMNS) <= set(table.columns)


def test_read_log_keeps_the_latest(tmp_path: Path) -> None:
    """With a limit, the newest rows stay; without a log there are none."""
    write_log(tmp_path, logged(30, seed=0))

    assert list(read_log(tmp_path, "v1", limit=2)["time"]) == [
        "2026-01-01T00:00:28.000+00:00",
        "2026-01-01T00:00:29.000+00:00",
    ]
    assert len(read_log(tmp_path / "none", "v1", limit=2)) == 0


def test_answer_folder_counts_what_is_no_image(drawn_root: Path, bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """Readable images are answered, others counted."""
    (tmp_path / "a.jpg").write_bytes(face)
    (tmp_path / "b.txt").write_text("no")

    table, num_rejected = predict_folder(tmp_path, Classifier(bundle_dir))

    assert (len(table), num_rejected) == (1, 1)
    assert tuple(table.columns) == FEATURE_COLUMNS


def test_evidentlys_page_is_whole(tmp_path: Path) -> None:
    """It is written, needs no network, and stands beside a record of the verdict."""
    current, reference = logged(200, seed=1, shift=-0.2), logged(1000, seed=0)
    verdict = judge(current, reference)

    path = write_drift_report(tmp_path, current, reference, verdict, DriftSource("predictions", "v1"), WINDOW)

    assert path is not None
    page = path.read_text()
    assert "brightness" in page
    assert "<script src=" not in page
    assert path.stat().st_size < 6_000_000
    assert json.loads((tmp_path / "verdict.json").read_text())["state"] == verdict.state


def test_check_drift_prefers_the_log_and_falls_back_to_the_folder(
    bundle_dir: Path, drawn_root: Path, tmp_path: Path
) -> None:
    """Dim faces of another source are a change; faces like those of the reference, once logged, are none."""
    bundle = Path(shutil.copytree(bundle_dir, tmp_path / bundle_dir.name))
    known, _ = predict_folder(drawn_root / "raw", Classifier(bundle_dir))
    known = known.sample(frac=1, random_state=0).assign(true_emotion=known["emotion"])
    replace_reference(bundle, known.head(120))
    (tmp_path / "dim").mkdir()
    for number in range(60):
        face = draw_face(EMOTIONS[number % 5], np.random.default_rng(number), dim=True)
        (tmp_path / "dim" / f"{number}.jpg").write_bytes(face)
    where = places(tmp_path, tmp_path / "dim")

    folder = check_drift(bundle, where)
    assert newest_report(tmp_path / "reports") == folder.report_dir
    write_log(tmp_path / "predictions", known.tail(60), version=bundle.name)
    log = check_drift(bundle, where)

    assert (folder.source.kind, log.source.kind) == ("unlabelled", "predictions")
    assert folder.verdict.state in ("input_drift", "prediction_drift")
    assert (log.verdict.state, log.verdict.num_current) == ("ok", 60)
    assert newest_report(tmp_path / "reports") == log.report_dir


def replace_reference(bundle: Path, reference: pd.DataFrame) -> None:
    """Give a bundle another reference, with its hash, and no corruption profile, which would belong to the old one."""
    reference.to_parquet(bundle / REFERENCE_NAME)
    manifest = read_manifest(bundle)
    write_manifest(
        bundle, replace(manifest, files=manifest.files | {REFERENCE_NAME: file_sha256(bundle / REFERENCE_NAME)})
    )


def test_a_reference_of_older_code_is_rejected_with_a_remedy(bundle_dir: Path, tmp_path: Path) -> None:
    """A model from before a statistic was invented cannot be compared with what is logged now."""
    old = tmp_path / bundle_dir.name
    shutil.copytree(bundle_dir, old)
    pd.read_parquet(old / REFERENCE_NAME).drop(columns="eyes_minus_cheeks").to_parquet(old / REFERENCE_NAME)
    manifest = read_manifest(old)
    write_manifest(old, replace(manifest, files=manifest.files | {REFERENCE_NAME: file_sha256(old / REFERENCE_NAME)}))

    with pytest.raises(UnusableDataError, match=r"no eyes_minus_cheeks.*Train and accept a new model"):
        check_drift(old, places(tmp_path, tmp_path / "none"))


def reference_of(count: int, seed: int, happy: float = 0.2) -> pd.DataFrame:
    """Logged values of a model that is mostly right, with the truth; probabilities follow the true emotion."""
    rng = np.random.default_rng(seed)
    table = logged(count, seed)
    weights = [happy if emotion == "happy" else (1 - happy) / 4 for emotion in EMOTIONS]
    truth = rng.choice(5, count, p=weights)
    logits = rng.normal(0, 1, (count, 5))
    logits[np.arange(count), truth] += 2
    # What a calibrated model would say that learnt with equal fractions.
    probabilities = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    for index, emotion in enumerate(EMOTIONS):
        table[f"p_{emotion}"] = probabilities[:, index]
    table["emotion"] = [EMOTIONS[index] for index in probabilities.argmax(axis=1)]
    table["true_emotion"] = [EMOTIONS[index] for index in truth]
    return table


def test_another_mix_of_emotions_is_no_alarm() -> None:
    """When people merely smile more, the answers change and the fractions explain it; other answers are not explained."""
    reference = reference_of(3000, seed=0)

    happier = judge(reference_of(300, seed=1, happy=0.7), reference)
    strange = reference_of(300, seed=2)
    strange["p_sad"] = strange["p_sad"] * 0.5 + 0.4
    changed = judge(strange, reference)

    assert happier.state == "label_shift"
    assert happier.fractions is not None
    assert happier.fractions["happy"] == pytest.approx(0.7, abs=0.1)
    assert "mix of emotions" in happier.cause
    assert changed.state == "prediction_drift"
    assert changed.severity == "strong"


def test_a_few_strange_images_among_many_are_counted() -> None:
    """Ten per cent of images unlike any face are found, though every distribution looks nearly the same."""
    current, reference = logged(200, seed=1), logged(3000, seed=0)
    current.loc[:19, list(current.columns[:12])] += np.where(np.arange(12) % 2, 0.25, -0.25)

    verdict = judge(current, reference)

    assert verdict.has_outliers
    assert verdict.num_outliers >= 18
    assert "images are odd" in verdict.cause
    assert not judge(logged(200, seed=2), reference).has_outliers


def long_reference(bundle_dir: Path, tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A bundle whose reference has enough rows to judge on."""
    copy = Path(shutil.copytree(bundle_dir, tmp_path / "bundle"))
    reference = reference_of(1000, seed=0)
    replace_reference(copy, reference)
    return copy, reference


def slightly_off(count: int, seed: int) -> pd.DataFrame:
    """A change that is seen, but not beyond doubt."""
    table = reference_of(count, seed)
    table["p_sad"] += 0.003
    table["brightness"] -= 0.05
    return table


def test_two_alarms_in_a_row_make_an_incident(bundle_dir: Path, tmp_path: Path) -> None:
    """Windows do not overlap, a window that was judged counts once, and a calm one ends the row."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where = places(tmp_path, tmp_path / "none")
    seen = []
    for hour, table in enumerate([slightly_off(120, 1), slightly_off(120, 2), reference_of(120, 3)]):
        name = f"20260101T{hour:02}0000-a-1.jsonl"
        write_log(tmp_path / "predictions", table, version=bundle_dir.name, name=name, start=hour)
        seen.append(check_drift(bundle, where))
        seen.append(check_drift(bundle, where))

    states = [(check.verdict.state, check.window.alarms_in_a_row, check.window.is_incident) for check in seen[::2]]
    assert [state for state, _, _ in states] == ["prediction_drift", "prediction_drift", "ok"]
    assert [row for _, row, _ in states] == [1, 2, 0]
    assert states[1][2]
    assert [check.window.is_opened for check in seen] == [False, False, True, False, False, False]
    request = pd.read_csv(seen[2].report_dir / "sample_for_labelling.csv")
    assert len(request) == request["prediction_id"].nunique() == 100
    assert set(request["reason"]) <= {"random", "odd", "uncertain"}
    assert (request["reason"] == "random").sum() == 50
    assert not states[2][2]
    assert [check.window.is_new for check in seen] == [True, False] * 3
    assert seen[0].verdict.num_current == seen[2].verdict.num_current == 120
    assert seen[1].window.alarms_in_a_row == 1


def test_a_clock_that_is_ahead_ends_no_window_in_the_future(bundle_dir: Path, tmp_path: Path) -> None:
    """One record of another year must not hide everything that comes until then, nor may a mark that it left."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where, log, version = places(tmp_path, tmp_path / "none"), tmp_path / "predictions", bundle_dir.name
    write_log(log, reference_of(1, 9), version=version, name="20990101T000000-a-1.jsonl", year=2099)
    write_log(log, reference_of(120, 1), version=version)
    first = check_drift(bundle, where)
    record = json.loads((first.report_dir / "verdict.json").read_text())
    record["window"]["until"] = "2099-01-01T00:00:00.000+00:00"
    (first.report_dir / "verdict.json").write_text(json.dumps(record))
    write_log(log, slightly_off(120, 2), version=version, name="20260101T010000-a-1.jsonl", start=1)

    second = check_drift(bundle, where)

    assert (first.verdict.num_current, first.window.until[:4]) == (120, "2026")
    assert second.window.is_new
    assert second.window.until.startswith("2026-01-01T01")


def test_a_window_that_is_looked_at_again_is_the_same_one(bundle_dir: Path, tmp_path: Path) -> None:
    """Neither earlier windows nor the few images since belong to it, or to what people are asked to label."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where = places(tmp_path, tmp_path / "none")
    tables = [reference_of(300, 3), slightly_off(120, 1), slightly_off(120, 2), reference_of(20, 4)]
    for hour, table in enumerate(tables):
        name = f"20260101T{hour:02}0000-a-1.jsonl"
        write_log(tmp_path / "predictions", table, version=bundle_dir.name, name=name, start=hour)
        check = check_drift(bundle, where)

    assert (check.window.is_new, check.window.is_incident, check.verdict.num_current) == (False, True, 120)
    assert check.window.since.startswith("2026-01-01T02")
    assert check.verdict.state == "prediction_drift"
    request = pd.read_csv(check.report_dir / REQUEST_NAME)
    assert request["prediction_id"].str.endswith("20260101T020000-a-1.jsonl").all()


def test_an_incident_is_told_though_the_queue_cannot_be_written(bundle_dir: Path, tmp_path: Path) -> None:
    """The folder of labels may be the service's alone; the verdict stands, and says what is missing."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where = places(tmp_path, tmp_path / "none")
    where.feedback_dir.write_text("in the way")
    for hour in range(2):
        name = f"20260101T{hour:02}0000-a-1.jsonl"
        write_log(tmp_path / "predictions", slightly_off(120, hour), version=bundle_dir.name, name=name, start=hour)
        check = check_drift(bundle, where)

    assert check.window.is_incident
    assert check.queue_problem
    assert f"feedback/{LABEL_REQUEST_NAME} could not be written" in check.queue_problem
    assert (check.report_dir / REQUEST_NAME).exists()
    assert json.loads((check.report_dir / "verdict.json").read_text())["window"]["is_incident"]


def test_a_report_of_the_future_rules_nothing(bundle_dir: Path, tmp_path: Path) -> None:
    """A clock that was ahead for a while must not hide what was judged since."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where = places(tmp_path, tmp_path / "none")
    write_log(tmp_path / "predictions", slightly_off(120, 1), version=bundle_dir.name)
    wrong = check_drift(bundle, where).report_dir
    wrong.rename(wrong.with_name("20990101T000000000000"))

    check = check_drift(bundle, where)

    assert newest_report(tmp_path / "reports") == check.report_dir
    assert check.window.is_new


def test_drift_is_about_the_model_that_answers(bundle_dir: Path, tmp_path: Path) -> None:
    """A container continues with its own model; one that follows has no answers of the earlier one any more."""
    registry = Registry(tmp_path / "models")
    earlier, later = "20251231-000000-00000001", "20260101-000000-00000002"
    for name in (earlier, later):
        folder = Path(shutil.copytree(bundle_dir, registry.models_dir / name))
        write_manifest(folder, replace(read_manifest(folder), version=name))
    accepted = [
        {"at": f"2026-01-01T0{hour}:00:00+00:00", "candidate": name, "is_accepted": True}
        for hour, name in enumerate((earlier, later))
    ]
    record = {"schema_version": 1, "version": later, "history": accepted}
    (registry.models_dir / "champion.json").write_text(json.dumps(record))
    log = tmp_path / "predictions"
    assert deployed_model(registry, log).name == later

    # Before it was accepted, and within the minutes that a service takes to follow.
    write_log(log, logged(100, 1), version=earlier, name="20260101T000000-a-1.jsonl")
    write_log(log, logged(100, 1), version=earlier, name="20260101T010000-a-1.jsonl", start=1)
    assert deployed_model(registry, log).name == later

    write_log(log, logged(100, 1), version=earlier, name="20260101T020000-a-1.jsonl", start=2)
    assert deployed_model(registry, log).name == earlier

    write_log(log, logged(60, 1), version=later, name="20260101T030000-a-1.jsonl", start=3)
    assert deployed_model(registry, log).name == later


def test_a_torn_file_of_evidently_holds_up_nothing(bundle_dir: Path, tmp_path: Path) -> None:
    """A kill may leave one in its workspace, and it reads all of them each time."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where = places(tmp_path, tmp_path / "none")
    write_log(tmp_path / "predictions", reference_of(120, 1), version=bundle_dir.name)
    check_drift(bundle, where)
    for path in (tmp_path / "reports" / "evidently").rglob("*.json"):
        path.write_text("{")

    check = check_drift(bundle, where)

    assert (check.report_dir / "verdict.json").exists()
    assert any(path.read_text() != "{" for path in (tmp_path / "reports" / "evidently").rglob("*.json"))


def test_people_are_told_again_until_it_was_delivered(bundle_dir: Path, tmp_path: Path) -> None:
    """A run that dies before it has told them leaves an incident of which nobody knows."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where = places(tmp_path, tmp_path / "none")
    told = []
    for hour in range(4):
        name = f"20260101T{hour:02}0000-a-1.jsonl"
        write_log(tmp_path / "predictions", slightly_off(120, hour), version=bundle_dir.name, name=name, start=hour)
        check = check_drift(bundle, where)
        told.append((check.window.is_incident, set(check.notified_channels)))
        if hour == 2:
            record_notified(check, ["log", "webhook"])

    assert told == [(False, set()), (True, set()), (True, set()), (True, {"log", "webhook"})]


def test_labels_give_the_honest_verdict(bundle_dir: Path, tmp_path: Path) -> None:
    """The record has the fraction of right answers among those drawn at random, with its interval, and no others."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    write_log(tmp_path / "predictions", reference_of(100, 1), version=bundle_dir.name)
    table = read_log(tmp_path / "predictions", bundle_dir.name, 100)
    request = table[["prediction_id", "emotion"]].assign(reason=["random"] * 40 + ["uncertain"] * 60)
    report_dir = tmp_path / "reports" / "drift" / "20260101T000000000000"
    report_dir.mkdir(parents=True)
    request.to_csv(report_dir / REQUEST_NAME, index=False)
    record = {"model_version": bundle_dir.name, "source": "unlabelled", "window": None}
    (report_dir / "verdict.json").write_text(json.dumps(record))
    for number, row in enumerate(table.itertuples()):
        path = tmp_path / "feedback" / str(row.prediction_id)[:2] / f"{row.prediction_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        emotion = row.emotion if number < 30 else EMOTIONS[(EMOTIONS.index(str(row.emotion)) + 1) % 5]
        label = {"prediction_id": row.prediction_id, "emotion": emotion, "time": "2026-01-02T00:00:00.000+00:00"}
        path.write_text(json.dumps(label))

    check = check_drift(bundle, places(tmp_path, tmp_path / "none"))

    performance = json.loads((check.report_dir / "verdict.json").read_text())["window"]["performance"]
    assert performance["num_labels"] == 40
    assert performance["accuracy"] == 0.75
    assert performance["low"] < 0.75 < performance["high"]


def test_the_page_begins_with_the_verdict_the_trend_and_the_images(
    bundle_dir: Path, tmp_path: Path, faces: list[tuple[str, bytes]]
) -> None:
    """Our sentence, the windows before, and a few kept images stand above Evidently's tests; nothing is fetched."""
    bundle, _ = long_reference(bundle_dir, tmp_path)
    where = places(tmp_path, tmp_path / "none")
    for hour, table in enumerate([reference_of(120, 3), slightly_off(120, 1)]):
        name = f"20260101T{hour:02}0000-a-1.jsonl"
        write_log(tmp_path / "predictions", table, version=bundle_dir.name, name=name, start=hour)
        if hour:
            logged_now = read_log(tmp_path / "predictions", bundle_dir.name, 500)
            folder = tmp_path / "predictions" / "images" / "2026-01-01"
            folder.mkdir(parents=True)
            for prediction_id, (_, face) in zip(logged_now["prediction_id"].tail(5), faces, strict=False):
                (folder / f"{prediction_id}.jpeg").write_bytes(face)
            (folder / f"{logged_now['prediction_id'].iloc[-6]}.jpeg").write_bytes(b"torn")
        check = check_drift(bundle, where)
    assert check.html_path
    page = check.html_path.read_text()
    top = page[page.index('<section id="emotion-verdict">') : page.index("</section>")]

    assert check.verdict.cause.replace("<", "&lt;") in top
    assert "Windows before this one" in top
    assert "<td>ok</td>" in top
    assert top.count("data:image/webp;base64,") == 5
    assert "http" not in top
    assert page.index("<body") < page.index('<section id="emotion-verdict">')


@pytest.mark.parametrize("count", [60, 200, 2000])
def test_fresh_faces_are_as_seldom_odd_as_the_references_own(count: int) -> None:
    """A small reference does not call more faces odd than a large one: no row counts in its own distance."""
    references = [OutlierDetector(logged(count, seed)) for seed in range(30)]
    expected = np.mean([outliers.num_outliers_in_reference / count for outliers in references])
    odd = [outliers.is_outlier(logged(500, seed + 1000)).mean() for seed, outliers in enumerate(references)]
    naive = []
    for seed in range(30):
        reference, fresh = logged(count, seed), logged(500, seed + 1000)
        names = list(STATISTICS)
        center, inverse = reference[names].mean(), np.linalg.inv(np.cov(reference[names], rowvar=False))
        far = [
            np.einsum("ij,jk,ik->i", away, inverse, away) for away in (reference[names] - center, fresh[names] - center)
        ]
        naive.append((far[1] > np.percentile(far[0], 98)).mean())

    assert np.mean(odd) == pytest.approx(expected, abs=0.01)
    if count < 100:
        assert np.mean(naive) > 0.15


def test_a_cheap_change_is_no_evidence_beyond_doubt() -> None:
    """What a known corruption explains is left out; what it leaves of the answers counts."""
    verdict = judge(logged(200, seed=1, happy=0.7), logged(2000, seed=0))

    assert verdict.is_significant
    assert not replace(verdict, unexplained_p_value=1e-3).is_significant
    assert replace(verdict, unexplained_p_value=1e-9).is_significant
