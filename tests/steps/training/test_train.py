from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.splits.splits import Split, read_split, write_splits
from emotion_assets.steps.training.calibration import fit_log_loss_temperature, predict_logits
from emotion_assets.steps.training.checkpoints import remove_run_files
from emotion_assets.steps.training.module import EmotionModule
from emotion_assets.steps.training.train import class_weights, train
from tests.steps.training.helpers import TINY, flatten_weights, interrupted_at, tiny


def test_same_inputs_give_the_same_weights(drawn_root: Path, tmp_path: Path) -> None:
    """Data, configuration and seed determine the network; another seed gives another one."""
    first = train(drawn_root / "splits", tmp_path / "a", TINY)
    second = train(drawn_root / "splits", tmp_path / "b", TINY)
    other = train(drawn_root / "splits", tmp_path / "c", tiny(seed=1))

    assert torch.equal(flatten_weights(first), flatten_weights(second))
    assert first.history[-1]["val/loss"] == second.history[-1]["val/loss"]
    assert not torch.equal(flatten_weights(first), flatten_weights(other))


def test_an_interrupted_run_resumes_from_its_last_epoch(
    drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]
) -> None:
    """After a kill in the second epoch, training resumes after the first and ends where an unbroken run ends."""
    config = tiny(epochs=3)
    with interrupted_at("Epoch 2"):
        train(drawn_root / "splits", tmp_path / "work", config)
    log_lines()
    resumed = train(drawn_root / "splits", tmp_path / "work", config)
    unbroken = train(drawn_root / "splits", tmp_path / "other", config)

    assert resumed.resumed_from_epoch == 1
    assert log_lines()[0] == "Resuming an interrupted run after epoch 1"
    assert [record["epoch"] for record in resumed.history] == [1, 2, 3]
    assert torch.allclose(flatten_weights(resumed), flatten_weights(unbroken), atol=1e-6)


def test_a_terminated_run_resumes(drawn_root: Path, tmp_path: Path) -> None:
    """After SIGTERM in a process of its own, the next one starts where that was and ends where an unbroken run ends."""
    config = tiny(epochs=30)
    program = (
        "import logging, sys; from pathlib import Path; from emotion_assets.steps.training.config import TrainingConfig;"
        "from emotion_assets.steps.training.train import train;"
        "logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(message)s');"
        f"train(Path(sys.argv[1]), Path(sys.argv[2]), TrainingConfig(**{config.model_dump()!r}))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(drawn_root / "splits"), str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Epoch 3 "):
                process.send_signal(signal.SIGTERM)
                break
        rest, _ = process.communicate(timeout=60)
    resumed = train(drawn_root / "splits", tmp_path / "work", config)
    unbroken = train(drawn_root / "splits", tmp_path / "other", config)

    assert "Epoch 30 " not in rest
    assert 2 <= resumed.resumed_from_epoch < 30
    assert [record["epoch"] for record in resumed.history] == list(range(1, 31))
    assert torch.allclose(flatten_weights(resumed), flatten_weights(unbroken), atol=1e-6)


def test_a_resumed_run_keeps_its_cost_and_its_curves(drawn_root: Path, tmp_path: Path) -> None:
    """It does not look cheap, and its curves begin where it began."""
    config = tiny(epochs=3, num_teachers=1)
    with interrupted_at("Epoch 2"):
        train(drawn_root / "splits", tmp_path, config)
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


def test_teachers_are_trained_first_and_only_once(
    drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]
) -> None:
    """They change what the network learns, a resumed run loads them, and no file of theirs is left."""
    config = tiny(epochs=3, num_teachers=2, width=10)
    with interrupted_at("Epoch 2"):
        train(drawn_root / "splits", tmp_path / "work", config)
    assert [line[:28] for line in log_lines() if "Epoch 3 of 3" in line] == [
        "Teacher 1 of 2: Epoch 3 of 3",
        "Teacher 2 of 2: Epoch 3 of 3",
    ]
    resumed = train(drawn_root / "splits", tmp_path / "work", config)
    lines = log_lines()
    unbroken = train(drawn_root / "splits", tmp_path / "other", config)
    alone = train(drawn_root / "splits", tmp_path / "alone", config.model_copy(update={"num_teachers": 0}))

    assert lines[:2] == ["Teacher 1 of 2 is finished already", "Teacher 2 of 2 is finished already"]
    assert lines[2].startswith("Resuming")
    assert not any(line.startswith("Teacher") for line in lines[2:])
    assert torch.allclose(flatten_weights(resumed), flatten_weights(unbroken), atol=1e-6)
    assert not torch.allclose(flatten_weights(unbroken), flatten_weights(alone), atol=1e-3)
    (run_dir,) = (tmp_path / "work").glob("*/")
    remove_run_files(run_dir)
    assert not [*tmp_path.glob("work/**/*.ckpt"), *tmp_path.glob("work/**/*.safetensors")]


def test_a_finished_network_is_resumed_unchanged(drawn_root: Path, tmp_path: Path) -> None:
    """A kill during the orientation training costs neither network anything, also with weight averaging."""
    config = tiny(epochs=3, averaging_fraction=0.5, corrects_orientation=True)
    with interrupted_at("Orientation: Epoch 2"):
        train(drawn_root / "splits", tmp_path / "work", config)
    resumed = train(drawn_root / "splits", tmp_path / "work", config)
    unbroken = train(drawn_root / "splits", tmp_path / "other", config)

    assert resumed.resumed_from_epoch == 3
    assert resumed.history == [
        record | {"seconds": resumed.history[i]["seconds"]} for i, record in enumerate(unbroken.history)
    ]
    assert torch.equal(flatten_weights(resumed), flatten_weights(unbroken))
    assert resumed.orientation is not None
    assert unbroken.orientation is not None
    for actual, expected in zip(resumed.orientation.parameters(), unbroken.orientation.parameters(), strict=True):
        assert torch.allclose(actual, expected, atol=1e-6)


def test_a_teacher_is_a_network_without_label_smoothing(drawn_root: Path, tmp_path: Path) -> None:
    """Smoothing would erase what the student can learn from it."""
    config = tiny(num_teachers=1, label_smoothing=0.2, width=5)
    train(drawn_root / "splits", tmp_path / "work", config)
    (path,) = (tmp_path / "work").glob("*/teacher_0.safetensors")
    teacher = load_file(path)
    plain = config.model_copy(update={"num_teachers": 0, "label_smoothing": 0.0, "seed": config.seed + 1_000_000})
    alone = train(drawn_root / "splits", tmp_path / "alone", plain)

    temperature = fit_log_loss_temperature(predict_logits(alone.network, alone.run.val), alone.run.val.class_indices)
    assert float(teacher.pop("temperature")) == pytest.approx(temperature)
    assert all(torch.equal(teacher[name], value) for name, value in alone.network.state_dict().items())


def test_all_networks_share_the_time(drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they end by `max_minutes`, and the record keeps the requested limit."""
    limits = []
    begin = EmotionModule.on_train_start

    def record_limit(module: EmotionModule) -> None:
        limits.append(module.config.max_minutes)
        begin(module)

    monkeypatch.setattr(EmotionModule, "on_train_start", record_limit)
    config = tiny(epochs=10_000, num_teachers=1, max_minutes=0.1, width=5, corrects_orientation=True)
    trained = train(drawn_root / "splits", tmp_path, config)

    assert limits == pytest.approx([0.045, 0.045, 0.01])
    assert trained.config.max_minutes == 0.1
    assert 1 <= len(trained.history) < 10_000


def test_a_network_whose_time_is_over_is_not_trained_further(drawn_root: Path, tmp_path: Path) -> None:
    """When the run resumes with the orientation network, the emotion network stays as it was."""
    states: list[dict[str, torch.Tensor]] = []

    class KeepState(pl.Callback):
        def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            del trainer
            states.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    config = tiny(epochs=500, max_minutes=0.03, corrects_orientation=True, averaging_fraction=0.01)
    with interrupted_at("Orientation: Epoch 1"):
        train(drawn_root / "splits", tmp_path, config, callbacks=[KeepState()])
    resumed = train(drawn_root / "splits", tmp_path, config, callbacks=[KeepState()])

    assert resumed.resumed_from_epoch == len(resumed.history) < 500
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_other_configuration_or_code_starts_from_scratch(
    drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]
) -> None:
    """Their checkpoint is not used, and neither is a torn one."""
    train(drawn_root / "splits", tmp_path, TINY)
    changed = [
        train(drawn_root / "splits", tmp_path, tiny(seed=5)),
        train(drawn_root / "splits", tmp_path, TINY, code_version="new"),
    ]
    for checkpoint in tmp_path.rglob("*.ckpt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    changed.append(train(drawn_root / "splits", tmp_path, TINY))

    assert [trained.resumed_from_epoch for trained in changed] == [0, 0, 0]
    assert sum(line.startswith("Starting on") for line in log_lines()) == 4


def test_a_diverged_loss_stops_the_run(drawn_root: Path, tmp_path: Path) -> None:
    """The message names the remedy."""
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        train(drawn_root / "splits", tmp_path, tiny(learning_rate=1e30, adam_learning_rate=1e30))


def test_unusable_inputs_are_rejected(drawn_root: Path, tmp_path: Path) -> None:
    """Without splits the remedy is to materialize them; several processes need a launcher."""
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits"):
        train(tmp_path, tmp_path / "work", TINY)
    with pytest.raises(UnusableDataError, match="Call train_bundle"):
        train(drawn_root / "splits", tmp_path / "work", tiny(devices=2))


def test_class_weights_grow_with_rarity() -> None:
    """Their mean over the images is 1; a class without images gets a finite weight."""
    indices = np.repeat(np.arange(4), [399, 99, 24, 0])
    split = Split(np.zeros((len(indices), 1, 1), np.uint8), indices, ("",) * len(indices), ("a", "b", "c", "d"))

    weights = class_weights(split)

    assert (weights / weights[0]).tolist() == pytest.approx([1, 2, 4, 20])
    assert float((weights[indices]).mean()) == pytest.approx(1, rel=0.05)


def test_balanced_classes_have_equal_weights(drawn_root: Path, tmp_path: Path) -> None:
    """On classes of one size `balanced` changes nothing; on others it does."""
    train_split, val_split = (read_split(drawn_root / "splits", name) for name in ("train", "val"))
    kept = np.flatnonzero((train_split.class_indices != 0) | (np.arange(len(train_split.pixels)) % 4 == 0))
    hashes = tuple(train_split.content_hashes[i] for i in kept)
    rare = Split(train_split.pixels[kept], train_split.class_indices[kept], hashes)
    same = []
    for name, split in (("equal", train_split), ("rare", rare)):
        write_splits(tmp_path / name, name, {"train": split, "val": val_split})
        networks = [
            train(tmp_path / name, tmp_path / weighting, TINY.model_copy(update={"class_weighting": weighting})).network
            for weighting in ("none", "balanced")
        ]
        first, second = (network.state_dict()["head.weight"] for network in networks)
        same.append(torch.allclose(first, second, atol=1e-4))

    assert same == [True, False]
