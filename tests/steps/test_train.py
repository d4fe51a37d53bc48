from __future__ import annotations

import dataclasses
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.training.calibration import fit_temperature, least_log_loss_temperature, predict_logits
from emotion_assets.steps.training.checkpoints import remove_run_files
from emotion_assets.steps.training.config import PRESETS, TrainingConfig, training_config
from emotion_assets.steps.training.model import EmotionNet
from emotion_assets.steps.training.module import (
    AtomicCheckpointIO,
    EmotionModule,
    learning_rate_factor,
    training_side_px,
)
from emotion_assets.steps.training.run import train_bundle
from emotion_assets.steps.training.train import TrainedNetwork, train
from emotion_assets.steps.training.trainer import resolve_accelerator, resolve_precision

TINY = TrainingConfig(epochs=2, width=4, dropout=0.1, batch_size=32, precision="32-true")


def weights(trained: TrainedNetwork) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in trained.network.state_dict().values()])


def test_same_inputs_give_the_same_weights(drawn_root: Path, tmp_path: Path) -> None:
    """Data, configuration and seed determine the network; another seed gives another one."""
    first = train(drawn_root / "splits", tmp_path / "a", TINY)
    second = train(drawn_root / "splits", tmp_path / "b", TINY)
    other = train(drawn_root / "splits", tmp_path / "c", training_config("quick", **_fields(seed=1)))

    assert torch.equal(weights(first), weights(second))
    assert first.history[-1]["val/loss"] == second.history[-1]["val/loss"]
    assert not torch.equal(weights(first), weights(other))


def _fields(**changes: object) -> dict[str, object]:
    return {name: getattr(TINY, name) for name in TINY.__slots__} | changes


def test_an_interrupted_run_goes_on_from_its_last_epoch(drawn_root: Path, tmp_path: Path) -> None:
    """After a kill in the second epoch, training resumes after the first and ends where an unbroken run ends."""
    lines: list[str] = []

    def stop_after_first_epoch(line: str) -> None:
        if line.startswith("Epoch 2"):
            raise KeyboardInterrupt

    config = training_config("quick", **_fields(epochs=3))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(drawn_root / "splits", tmp_path / "work", config, log=stop_after_first_epoch)
    resumed = train(drawn_root / "splits", tmp_path / "work", config, log=lines.append)
    unbroken = train(drawn_root / "splits", tmp_path / "other", config)

    assert resumed.resumed_from_epoch >= 1
    assert "interrupted run" in lines[0]
    assert [record["epoch"] for record in resumed.history] == [1, 2, 3]
    assert torch.allclose(weights(resumed), weights(unbroken), atol=1e-6)


def test_what_an_interrupted_run_had_cost_and_shown_is_kept(drawn_root: Path, tmp_path: Path) -> None:
    """A run taken up again does not look cheap, and its curves begin where it began."""

    def stop_in_second_epoch(line: str) -> None:
        if line.startswith("Epoch 2"):
            raise KeyboardInterrupt

    config = training_config("quick", **_fields(epochs=3, num_teachers=1))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(drawn_root / "splits", tmp_path, config, log=stop_in_second_epoch)
    (cost,) = tmp_path.glob("*/cost.json")
    cost.write_text("[1000, 2000]")
    temporary = cost.with_name(".last.ckpt.0123abcd.tmp")
    temporary.write_bytes(b"torn by a kill")
    resumed = train(drawn_root / "splits", tmp_path, config)

    assert 1000 < resumed.seconds < 1100
    assert 2000 < resumed.cpu_seconds < 2200
    tables = [pd.read_csv(path) for path in cost.parent.glob("csv/*/metrics.csv")]
    assert set(pd.concat(tables)["epoch"]) == {0, 1, 2}
    assert not temporary.exists()
    remove_run_files(cost.parent)
    assert not cost.exists()


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle leaves the one before."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)

    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_teachers_are_trained_first_and_only_once(drawn_root: Path, tmp_path: Path) -> None:
    """A network learns otherwise with them, a run that was killed later takes them up again, and nothing is left."""
    lines: list[str] = []

    def stop_after_first_epoch(line: str) -> None:
        lines.append(line)
        if line.startswith("Epoch 2"):
            raise KeyboardInterrupt

    config = training_config("quick", **_fields(epochs=3, num_teachers=2, width=10))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(drawn_root / "splits", tmp_path / "work", config, log=stop_after_first_epoch)
    assert [line[:28] for line in lines if "Epoch 3 of 3" in line] == [
        "Teacher 1 of 2: Epoch 3 of 3",
        "Teacher 2 of 2: Epoch 3 of 3",
    ]
    lines.clear()
    resumed = train(drawn_root / "splits", tmp_path / "work", config, log=lines.append)
    unbroken = train(drawn_root / "splits", tmp_path / "other", config)
    alone = train(drawn_root / "splits", tmp_path / "alone", dataclasses.replace(config, num_teachers=0))

    assert lines[:2] == ["Teacher 1 of 2 is finished already", "Teacher 2 of 2 is finished already"]
    assert "interrupted run" in lines[2]
    assert not any(line.startswith("Teacher") for line in lines[2:])
    assert torch.allclose(weights(resumed), weights(unbroken), atol=1e-6)
    assert not torch.allclose(weights(unbroken), weights(alone), atol=1e-3)
    (run_dir,) = (tmp_path / "work").iterdir()
    remove_run_files(run_dir)
    assert not [*tmp_path.glob("work/**/*.ckpt"), *tmp_path.glob("work/**/*.safetensors")]


def test_a_finished_network_is_taken_up_as_it_was(drawn_root: Path, tmp_path: Path) -> None:
    """A kill while the orientations are learnt costs neither network anything, also where weights are averaged."""

    def stop_in_orientations(line: str) -> None:
        if line.startswith("Orientations: Epoch 2"):
            raise KeyboardInterrupt

    config = training_config("quick", **_fields(epochs=3, averaging_fraction=0.5, corrects_orientation=True))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(drawn_root / "splits", tmp_path / "work", config, log=stop_in_orientations)
    resumed = train(drawn_root / "splits", tmp_path / "work", config)
    unbroken = train(drawn_root / "splits", tmp_path / "other", config)

    assert resumed.resumed_from_epoch == 3
    assert resumed.history == [
        record | {"seconds": resumed.history[i]["seconds"]} for i, record in enumerate(unbroken.history)
    ]
    assert torch.equal(weights(resumed), weights(unbroken))
    assert resumed.orientation is not None
    assert unbroken.orientation is not None
    for ours, theirs in zip(resumed.orientation.parameters(), unbroken.orientation.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_teacher_is_a_network_of_the_same_kind_from_plain_labels(drawn_root: Path, tmp_path: Path) -> None:
    """Smoothed labels would take from it what the one that is kept can learn from it."""
    config = training_config("quick", **_fields(num_teachers=1, label_smoothing=0.2, width=5))
    train(drawn_root / "splits", tmp_path / "work", config)
    (path,) = (tmp_path / "work").glob("*/teacher_0.safetensors")
    teacher = load_file(path)
    plain = dataclasses.replace(config, num_teachers=0, label_smoothing=0.0, seed=config.seed + 1_000_000)
    alone = train(drawn_root / "splits", tmp_path / "alone", plain)

    temperature = least_log_loss_temperature(predict_logits(alone.network, alone.val), alone.val.class_indices)
    assert float(teacher.pop("temperature")) == pytest.approx(temperature)
    assert all(torch.equal(teacher[name], value) for name, value in alone.network.state_dict().items())


def test_teachers_fraction_the_time(drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All together end by `max_minutes`, and the record keeps what was asked for."""
    fractions = []
    begin = EmotionModule.on_train_start

    def note(module: EmotionModule) -> None:
        fractions.append(module.config.max_minutes)
        begin(module)

    monkeypatch.setattr(EmotionModule, "on_train_start", note)
    choices = _fields(epochs=10_000, num_teachers=1, max_minutes=0.1, width=5, corrects_orientation=True)
    config = training_config("quick", **choices)
    trained = train(drawn_root / "splits", tmp_path, config)

    assert fractions == pytest.approx([0.045, 0.045, 0.01])
    assert trained.config.max_minutes == 0.1
    assert 1 <= len(trained.history) < 10_000


def test_a_network_whose_time_was_up_learns_no_more(drawn_root: Path, tmp_path: Path) -> None:
    """Taken up again because the orientations were interrupted, it stays as it was."""
    kept: list[dict[str, torch.Tensor]] = []

    class Keep(pl.Callback):
        def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            del trainer
            kept.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def stop_in_orientations(line: str) -> None:
        if line.startswith("Orientations: Epoch 1"):
            raise KeyboardInterrupt

    choices = _fields(epochs=500, max_minutes=0.03, corrects_orientation=True, averaging_fraction=0.01)
    config = training_config("quick", **choices)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(drawn_root / "splits", tmp_path, config, log=stop_in_orientations, callbacks=[Keep()])
    resumed = train(drawn_root / "splits", tmp_path, config, callbacks=[Keep()])

    assert resumed.resumed_from_epoch == len(resumed.history)
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_kept_weights_are_a_mean(drawn_root: Path, tmp_path: Path) -> None:
    """With averaging they differ from the last ones, and lie between them and where they came from."""
    last, mean = (
        train(drawn_root / "splits", tmp_path / name, training_config("quick", **_fields(averaging_fraction=fraction)))
        for name, fraction in (("last", 0.0), ("mean", 0.5))
    )
    pl.seed_everything(TINY.seed, verbose=False)
    start = torch.cat([value.flatten() for value in EmotionNet(TINY.width, TINY.dropout).parameters()])
    last_weights, mean_weights = (
        torch.cat([value.flatten() for value in each.network.parameters()]) for each in (last, mean)
    )

    assert 0 < (mean_weights - start).norm() < (last_weights - start).norm()


def test_processes_go_to_cores_where_there_are_fewer_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on a machine with one GPU train on the processor, in the arithmetic that suits it."""
    on_cores = resolve_precision(TrainingConfig(epochs=1, width=4, dropout=0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    one, two = (TrainingConfig(epochs=1, width=4, dropout=0, devices=devices) for devices in (1, 2))

    assert (resolve_accelerator(one), resolve_precision(one)) == ("auto", "16-mixed")
    assert (resolve_accelerator(two), resolve_precision(two)) == ("cpu", on_cores)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_accelerator(two) == "cuda"


def test_a_changed_configuration_starts_afresh(drawn_root: Path, tmp_path: Path) -> None:
    """A checkpoint of another configuration is not used, and a torn one is not either."""
    train(drawn_root / "splits", tmp_path, TINY)
    lines: list[str] = []
    changed = train(drawn_root / "splits", tmp_path, training_config("quick", **_fields(seed=5)), log=lines.append)
    for checkpoint in tmp_path.rglob("*.ckpt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    torn = train(drawn_root / "splits", tmp_path, TINY)

    assert changed.resumed_from_epoch == torn.resumed_from_epoch == 0
    assert "from scratch" in lines[0]


def test_an_absurd_learning_rate_is_rejected(drawn_root: Path, tmp_path: Path) -> None:
    """A loss that is not a number stops the run with advice."""
    config = training_config("quick", **_fields(learning_rate=1e30, adam_learning_rate=1e30))

    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        train(drawn_root / "splits", tmp_path, config)


def test_max_minutes_shapes_the_schedule(drawn_root: Path, tmp_path: Path) -> None:
    """With almost no time the run ends early and in order."""
    config = training_config("quick", **_fields(epochs=500, max_minutes=0.02))

    trained = train(drawn_root / "splits", tmp_path, config)

    assert 1 <= len(trained.history) < 500


def test_training_without_splits_says_what_to_do(tmp_path: Path) -> None:
    """The remedy is to materialize the splits."""
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits"):
        train(tmp_path, tmp_path / "work", TINY)


def test_presets_take_overrides() -> None:
    """An override replaces the preset's value, None keeps it, and an unknown preset is rejected."""
    assert training_config("quick", epochs=3, seed=None).epochs == 3
    assert training_config("standard") == PRESETS["standard"]
    with pytest.raises(UnusableDataError, match="quick, standard, long"):
        training_config("fast")
    with pytest.raises(UnusableDataError, match="2 images cannot be shared by 2 processes"):
        training_config("quick", batch_size=2, devices=2)


def test_one_cycle_rises_and_falls() -> None:
    """The factor starts near 0, peaks at 1 after the warm-up and ends at 0."""
    values = [learning_rate_factor(x, 0.2) for x in np.linspace(0, 1, 101)]

    assert values[0] < 0.01
    assert max(values) == pytest.approx(1)
    assert np.argmax(values) == 20
    assert values[-1] == pytest.approx(0)


def test_fit_temperature_recovers_overconfidence() -> None:
    """Logits that were multiplied by 3 get a temperature of about 3."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 5)).astype(np.float32)
    truth = np.array([rng.choice(5, p=p) for p in softmax(logits, axis=1)])

    assert fit_temperature(logits * 3, truth) == pytest.approx(3, rel=0.1)
    assert least_log_loss_temperature(logits * 3, truth) == pytest.approx(3, rel=0.1)


def test_answers_are_as_sure_as_they_are_right() -> None:
    """Also where no temperature makes every confidence right, as with answers that are now too sure, now too modest."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 5)).astype(np.float32)
    truth = np.array([rng.choice(5, p=p) for p in softmax(logits, axis=1)])
    uneven = logits * np.where(np.arange(4000) % 2, 4, 0.5).astype(np.float32)[:, None]

    confidence = softmax(uneven / fit_temperature(uneven, truth), axis=1).max(axis=1)

    assert confidence.mean() == pytest.approx((uneven.argmax(axis=1) == truth).mean(), abs=1e-3)


@pytest.mark.parametrize(("num_right", "expected"), [(0, 10), (5, 0.1)])
def test_a_temperature_has_its_limits(num_right: int, expected: float) -> None:
    """A network that is never right cannot be modest enough, one of hardly any logits not sure enough."""
    truth = np.zeros(5, dtype=np.int64)
    logits = np.eye(5, dtype=np.float32)[np.full(5, 0 if num_right else 1)] * (1e-3 if num_right else 1e3)

    assert fit_temperature(logits, truth) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("num_faces", [10, 60, 2000])
def test_few_faces_answered_rightly_leave_a_doubt(num_faces: int) -> None:
    """The surest that a model without a mistake may be is as if each emotion had been seen once more."""
    truth = np.arange(num_faces) % 5
    logits = 5 * np.eye(5, dtype=np.float32)[truth]

    scaled = np.exp(logits / fit_temperature(logits, truth))

    assert scaled.max(axis=1) / scaled.sum(axis=1) == pytest.approx((num_faces + 1) / (num_faces + 5), abs=1e-3)


def test_bundle_records_how_it_was_made(bundle_dir: Path) -> None:
    """The manifest holds what is needed to repeat the run, and nothing in the bundle is a pickle."""
    manifest = read_manifest(bundle_dir)

    assert manifest.configuration["seed"] == 0
    assert manifest.configuration["width"] == 8
    assert len(manifest.data_fingerprint) == 64
    assert manifest.training["history"][0]["epoch"] == 1
    assert manifest.environment["torch"]
    assert set(manifest.files) == {"model.onnx", "weights.safetensors", "reference.parquet"}
    assert {path.name for path in bundle_dir.iterdir()} == {*manifest.files, "manifest.json"}


def test_finished_run_leaves_its_logs_and_no_checkpoint(bundle_dir: Path) -> None:
    """Once the bundle is written, the checkpoint is gone and the curves are kept."""
    left = {path.name for path in (bundle_dir.parent / ".training").rglob("*") if path.is_file()}

    assert "metrics.csv" in left
    assert not any(name.endswith(".ckpt") for name in left)


def test_a_checkpoint_of_other_code_is_not_used(drawn_root: Path, tmp_path: Path) -> None:
    """After the code changed, a run starts from scratch rather than fail on old weights."""
    train(drawn_root / "splits", tmp_path, TINY, code_version="old")

    assert train(drawn_root / "splits", tmp_path, TINY, code_version="new").resumed_from_epoch == 0


def test_images_grow_during_a_progressive_run() -> None:
    """Small at first, full size for the last two fifths."""
    assert [training_side_px(progress) for progress in (0, 0.29, 0.3, 0.59, 0.6, 1)] == [32, 32, 40, 40, 48, 48]


def test_equal_inputs_train_no_second_time(drawn_root: Path, tmp_path: Path) -> None:
    """A touched file must not cost hours and change the model under everybody's feet; a damaged one comes again."""
    lines: list[str] = []

    def bundle(**overrides: object) -> Path:
        choices = {"epochs": 1, "width": 4, "batch_size": 32, "quantize_int8": False} | overrides
        places = (drawn_root / "splits", tmp_path / "models", tmp_path / "work")
        return train_bundle(*places, preset="quick", overrides=choices, code_version="x", log=lines.append)

    first = bundle()
    (run_dir,) = (tmp_path / "work").iterdir()
    (run_dir / "last.ckpt").write_bytes(b"of a run that was killed before it had tidied up")
    same = bundle()
    assert same == first
    assert not (run_dir / "last.ckpt").exists()
    assert "Nothing has changed since" in lines[-1]
    other = bundle(seed=1)
    back = bundle()
    (back / "model.onnx").write_bytes(b"torn")

    assert len({first, other, back, bundle()}) == 4
