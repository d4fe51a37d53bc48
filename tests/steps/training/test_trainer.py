from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from emotion_assets.steps.training.checkpoints import CHECKPOINT_NAME
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.model import EmotionNet
from emotion_assets.steps.training.train import train
from emotion_assets.steps.training.trainer import AtomicCheckpointIO, build_trainer
from tests.steps.training.helpers import TINY, tiny


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_trainer_follows_its_configuration(tmp_path: Path, precision: str) -> None:
    """Epochs and precision are those of the run; its checkpoint and logs lie in its folder."""
    trainer = build_trainer(tmp_path, TrainingConfig(epochs=7), precision, [], [], resumed_from_epoch=3)

    (checkpoint,) = (each for each in trainer.callbacks if isinstance(each, ModelCheckpoint))
    assert trainer.max_epochs == 7
    assert trainer.precision == precision
    assert Path(str(checkpoint.dirpath)) / f"{checkpoint.filename}.ckpt" == tmp_path / CHECKPOINT_NAME
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert {Path(str(each.log_dir)).relative_to(tmp_path).as_posix() for each in trainer.loggers} == {
        "csv/version_3",
        "tensorboard/version_0",
    }


def test_a_checkpoint_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill during the write leaves the previous one."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)

    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_averaged_weights_are_a_mean(drawn_root: Path, tmp_path: Path) -> None:
    """They differ from the last weights, and lie between those and the initial ones."""
    last, mean = (
        train(drawn_root / "splits", tmp_path / name, tiny(averaging_fraction=fraction)).network
        for name, fraction in (("last", 0.0), ("mean", 0.5))
    )
    pl.seed_everything(TINY.seed, verbose=False)
    start, last_weights, mean_weights = (
        torch.cat([value.flatten() for value in network.parameters()])
        for network in (EmotionNet(TINY.width, TINY.dropout), last, mean)
    )

    assert 0 < (mean_weights - start).norm() < (last_weights - start).norm()


def test_each_epoch_logs_one_line(drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]) -> None:
    """With scores and time, and the cost is on disk."""
    train(drawn_root / "splits", tmp_path, TINY)
    lines = [line for line in log_lines() if line.startswith("Epoch")]

    assert [line.split(":")[0] for line in lines] == ["Epoch 1 of 2", "Epoch 2 of 2"]
    assert all("val accuracy" in line and line.endswith(" s left") for line in lines)
    assert list(tmp_path.glob("*/cost.json"))
