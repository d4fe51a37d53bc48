"""The networks: plain convolutional blocks, pooling, one linear head; and the form in which they are served."""

from __future__ import annotations

import copy
import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emotion_assets.core.classes import EMOTIONS

INPUT_SIZE_PX: Final = 48
"""The network's own resolution: FER2013's faces were taken at 48×48, and a smaller image costs less."""

NUM_ORIENTATIONS: Final = 8
"""A orientation is twice the number of quarter turns, and one more for a negative; 0 is upright."""

_NUM_TURNS: Final = 4
_UPRIGHT_PRIOR: Final = 0.95
"""What is expected of the faces that come: who turns one without need does harm."""
_CONTRAST_FLOOR: Final = 0.01


def standardize(gray: Tensor) -> Tensor:
    """Give every image mean 0 and deviation 1, so that light and contrast matter less.

    Args:
        gray: float (image, 1, row, column) in 0..1.

    Returns:
        float of the same shape.
    """
    mean = gray.mean(dim=(1, 2, 3), keepdim=True)
    deviation = (gray - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (gray - mean) / (deviation + _CONTRAST_FLOOR)


def _block(num_in: int, num_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
    )


class EmotionNet(nn.Module):
    """A stem of stride 2, three stages of convolutional blocks at 24, 12 and 6 pixels, pooling, a head."""

    def __init__(self, width: int = 64, dropout: float = 0.3, num_blocks: int = 2) -> None:
        """Make a network with random weights.

        Args:
            width: channels of the first stage; the others have 2 and 4 times as many.
            dropout: fraction of the embedding that is hidden in training.
            num_blocks: blocks of the second and of the third stage. The first has two: at its size they cost most.
        """
        super().__init__()
        stages = [_block(1, width, kernel=5, stride=2)]
        stages += [_block(width, width), _block(width, width)]
        for num_in in (width, 2 * width):
            stages += [nn.Sequential(nn.MaxPool2d(2)), _block(num_in, 2 * num_in)]
            stages += [_block(2 * num_in, 2 * num_in) for _ in range(num_blocks - 1)]
        self.body = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, len(EMOTIONS))

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (image, emotion) for standardized float (image, 1, side, side), side a multiple of 8."""
        logits: Tensor = self.head(self.dropout(self.embed(self.body(batch))))
        return logits

    @staticmethod
    def embed(features: Tensor) -> Tensor:
        """Pool features (image, channel, row, column) into the embedding (image, channel): their mean."""
        return features.mean(dim=(2, 3))


class OrientationNet(nn.Module):
    """Three stages at 24, 12 and 6 pixels and a linear head that sees places: which way up, and whether a negative.

    A network that learns emotions from turned faces as well reads upright ones worse; this question is far easier, so
    it is answered first and by itself. Turns as a task without labels: Gidaris et al. 2018, "Unsupervised
    representation learning by predicting image rotations".
    """

    def __init__(self, width: int = 24) -> None:
        """Make a network of `width`, 2 × `width` and 4 × `width` channels, with random weights."""
        super().__init__()
        self.body = nn.Sequential(
            nn.AvgPool2d(2),
            _block(1, width),
            nn.MaxPool2d(2),
            _block(width, 2 * width),
            nn.MaxPool2d(2),
            _block(2 * width, 4 * width),
            _block(4 * width, 4 * width),
        )
        self.head = nn.Linear(4 * width * (INPUT_SIZE_PX // 8) ** 2, NUM_ORIENTATIONS)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (image, orientation), all orientations being as likely, for standardized float (image, 1, 48, 48)."""
        logits: Tensor = self.head(self.body(batch).flatten(1))
        return logits

    def orientations(self, batch: Tensor) -> Tensor:
        """Return the most probable orientation of each image, int64 (image,), when nearly all stand upright."""
        others = (1 - _UPRIGHT_PRIOR) / (NUM_ORIENTATIONS - 1)
        prior = [math.log(_UPRIGHT_PRIOR)] + [math.log(others)] * (NUM_ORIENTATIONS - 1)
        likely: Tensor = self(batch) + torch.tensor(prior)
        return likely.argmax(dim=1)


def apply_orientation(batch: Tensor, orientations: Tensor) -> Tensor:
    """Bring upright views (image, 1, side, side) into orientations (image,)."""
    return turned(batch, orientations // 2) * _signs(orientations)


def correct_orientation(batch: Tensor, orientations: Tensor) -> Tensor:
    """Undo `posed`."""
    return turned(batch, -(orientations // 2) % _NUM_TURNS) * _signs(orientations)


def turned(batch: Tensor, turns: Tensor) -> Tensor:
    """Turn each of (image, channel, side, side) to the left by as many quarters as `turns` (image,) says."""
    side = batch.shape[-1]
    places = torch.arange(side * side).view(side, side)
    sources = torch.stack([torch.rot90(places, quarters).flatten() for quarters in range(_NUM_TURNS)])
    chosen = sources.to(batch.device)[turns][:, None].expand(-1, batch.shape[1], -1)
    return batch.flatten(2).gather(2, chosen).view(batch.shape)


def _signs(orientations: Tensor) -> Tensor:
    return (1 - 2 * (orientations % 2))[:, None, None, None]


class InferenceOutput(NamedTuple):
    """What the exported graph returns."""

    probabilities: Tensor
    """float32 (image, emotion), calibrated, each row sums to 1."""
    embedding: Tensor
    """float32 (image, feature)."""
    activation_maps: Tensor
    """float32 (image, emotion, row, column): evidence for each emotion, place by place (Zhou et al. 2016)."""


class InferenceModel(nn.Module):
    """A trained network from raw pixels to calibrated probabilities, so that no caller normalizes anything.

    It looks at each image and at its mirror image, which is worth about half a point of accuracy for a millisecond.
    """

    def __init__(self, network: EmotionNet, temperature: float, orientation: OrientationNet | None = None) -> None:
        """Wrap trained networks.

        Args:
            network: reads the emotion.
            temperature: divides its logits (Guo et al. 2017, "On calibration of modern neural networks").
            orientation: says how faces are to be put right before that; without it they are taken as they come.
        """
        super().__init__()
        self.network, self.orientation = network, orientation
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    def forward(self, pixels: Tensor) -> InferenceOutput:
        """Run on uint8 pixels (image, 64, 64)."""
        batch = prepare(pixels)
        if self.orientation is not None:
            orientations = self.orientation.orientations(batch)
            batch = correct_orientation(batch, orientations)
        features = self.network.body(torch.cat([batch, batch.flip(3)]))
        # Pooling and head are linear: the logits of both views' mean embedding are the mean of their logits, and
        # the head applied place by place gives maps whose mean is the logit (Zhou et al. 2016).
        embedding = torch.unflatten(self.network.embed(features), 0, (2, -1)).mean(dim=0)
        logits = self.network.head(embedding)
        maps = functional.conv2d(features, self.network.head.weight[:, :, None, None])
        maps = torch.unflatten(maps, 0, (2, -1))
        maps = (maps[0] + maps[1].flip(3)) / 2
        if self.orientation is not None:
            maps = turned(maps, orientations // 2)
        return InferenceOutput((logits / self.temperature).softmax(dim=1), embedding, maps)


def fuse_batch_norm(network: EmotionNet) -> EmotionNet:
    """Return a copy of a trained network whose convolutions do what its batch normalizations did."""
    plain = copy.deepcopy(network).eval()
    for block in plain.body:
        assert isinstance(block, nn.Sequential)
        convolution, normalisation = block[0], block[1] if len(block) > 1 else None
        if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
            block[0], block[1] = fuse_conv_bn_eval(convolution, normalisation), nn.Identity()
    return plain


def prepare(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels (image, 64, 64) into the network's standardized float (image, 1, 48, 48)."""
    gray = pixels[:, None].float() / 255
    size = (INPUT_SIZE_PX, INPUT_SIZE_PX)
    return standardize(functional.interpolate(gray, size=size, mode="bilinear", align_corners=False))
