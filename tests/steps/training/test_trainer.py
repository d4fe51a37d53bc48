from __future__ import annotations

from pathlib import Path

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint

from emotion_assets.steps.training.callbacks import AtomicCheckpointIO
from emotion_assets.steps.training.checkpoints import CHECKPOINT_NAME
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.trainer import build_trainer


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
