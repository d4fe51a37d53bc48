"""The networks, plain convolutional blocks with pooling and a linear head, and the inference model around them."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emotion_assets.core.classes import EMOTIONS

INPUT_SIZE_PX: Final = 48
"""The resolution of FER2013's faces; a smaller input also costs less."""

NUM_ORIENTATIONS: Final = 8
"""An orientation is twice the number of quarter turns, plus one for an inverted image; 0 is upright."""

_NUM_TURNS: Final = 4
_UPRIGHT_PRIOR: Final = 0.95
"""Prior probability of an upright face: a needless rotation does harm."""
_CONTRAST_FLOOR: Final = 0.01


def standardize(gray: Tensor) -> Tensor:
    """Give every image of float (image, 1, row, column), 0..1, mean 0 and standard deviation 1."""
    mean = gray.mean(dim=(1, 2, 3), keepdim=True)
    deviation = (gray - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (gray - mean) / (deviation + _CONTRAST_FLOOR)


def _block(num_in: int, num_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
    )


def _halve() -> nn.Sequential:
    """Halve rows and columns by a dense maximum and a mean.

    This aliases less than a maximum alone (Zhang 2019, "Making convolutional networks shift-invariant again").
    """
    # If set, count_include_pad changes nothing here, but makes onnxruntime in 8 bits average zeros in at the border.
    return nn.Sequential(nn.MaxPool2d(2, stride=1), nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False))


class EmotionNet(nn.Module):
    """A stem of stride 2, three stages of convolutional blocks at 24, 12 and 6 pixels, mean pooling and a head."""

    def __init__(
        self, width: int = 64, dropout: float = 0.15, num_blocks: int = 2, num_classes: int = len(EMOTIONS)
    ) -> None:
        """Initialize random weights.

        Args:
            width: channels of the first stage; the others have 2 and 4 times as many.
            dropout: on the embedding.
            num_blocks: blocks in each of the second and third stages; the first, the most expensive, has two.
            num_classes: outputs of the head.
        """
        super().__init__()
        stages = [_block(1, width, kernel=5, stride=2)]
        stages += [_block(width, width), _block(width, width)]
        for num_in in (width, 2 * width):
            stages += [_halve(), _block(num_in, 2 * num_in)]
            stages += [_block(2 * num_in, 2 * num_in) for _ in range(num_blocks - 1)]
        self.body = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (image, emotion) for standardized float (image, 1, side, side), side a multiple of 8."""
        logits: Tensor = self.head(self.dropout(self.embed(self.body(batch))))
        return logits

    @staticmethod
    def embed(features: Tensor) -> Tensor:
        """Pool features (image, channel, row, column) into the embedding (image, channel): their mean."""
        return features.mean(dim=(2, 3))


class OrientationNet(nn.Module):
    """Recognize rotated and inverted faces, with three stages at 24, 12 and 6 pixels and a linear head on all pixels.

    An emotion network that is trained on rotated faces too is worse on upright ones, so orientation has its own
    network. It needs no labels (Gidaris et al. 2018, "Unsupervised representation learning by predicting image
    rotations").
    """

    def __init__(self, width: int = 24) -> None:
        """Initialize random weights for `width`, 2 × `width` and 4 × `width` channels."""
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
        """Return logits (image, orientation) under a uniform prior for standardized float (image, 1, 48, 48)."""
        logits: Tensor = self.head(self.body(batch).flatten(1))
        return logits

    def predict(self, batch: Tensor) -> Tensor:
        """Return the most probable orientation of each image, int64 (image,), given that most are upright."""
        others = (1 - _UPRIGHT_PRIOR) / (NUM_ORIENTATIONS - 1)
        prior = [math.log(_UPRIGHT_PRIOR)] + [math.log(others)] * (NUM_ORIENTATIONS - 1)
        posterior: Tensor = self(batch) + torch.tensor(prior)
        return posterior.argmax(dim=1)


def apply_orientation(batch: Tensor, orientations: Tensor) -> Tensor:
    """Rotate and invert upright views (image, 1, side, side) into `orientations` (image,)."""
    return rotate_quarters(batch, orientations // 2) * _signs(orientations)


def correct_orientation(batch: Tensor, orientations: Tensor) -> Tensor:
    """Undo `apply_orientation`."""
    return rotate_quarters(batch, -(orientations // 2) % _NUM_TURNS) * _signs(orientations)


def rotate_quarters(batch: Tensor, turns: Tensor) -> Tensor:
    """Rotate each image of (image, channel, side, side) to the left by `turns` (image,) times 90°."""
    side = batch.shape[-1]
    positions = torch.arange(side * side).view(side, side)
    sources = torch.stack([torch.rot90(positions, quarters).flatten() for quarters in range(_NUM_TURNS)])
    chosen = sources.to(batch.device)[turns][:, None].expand(-1, batch.shape[1], -1)
    return batch.flatten(2).gather(2, chosen).view(batch.shape)


def _signs(orientations: Tensor) -> Tensor:
    return (1 - 2 * (orientations % 2))[:, None, None, None]


class InferenceOutput(NamedTuple):
    """The outputs of the exported graph."""

    probabilities: Tensor
    """float32 (image, emotion), calibrated, each row sums to 1."""
    embedding: Tensor
    """float32 (image, feature)."""
    activation_maps: Tensor
    """float32 (image, emotion, row, column): class activation maps (Zhou et al. 2016)."""


class InferenceModel(nn.Module):
    """A trained network from raw pixels to calibrated probabilities, with all preprocessing inside.

    It averages over each image and its mirror image: half a point of accuracy for a millisecond.
    """

    def __init__(self, network: EmotionNet, temperature: float, orientation: OrientationNet | None = None) -> None:
        """Wrap trained networks.

        Args:
            network: classifies the emotion.
            temperature: divides its logits (Guo et al. 2017, "On calibration of modern neural networks").
            orientation: if given, faces are rotated upright and un-inverted first.
        """
        super().__init__()
        self.network, self.orientation = network, orientation
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    def forward(self, pixels: Tensor) -> InferenceOutput:
        """Run on uint8 pixels (image, 64, 64)."""
        batch = preprocess(pixels)
        if self.orientation is not None:
            orientations = self.orientation.predict(batch)
            batch = correct_orientation(batch, orientations)
        features = self.network.body(torch.cat([batch, batch.flip(3)]))
        # Pooling and head are linear: the head on the mean embedding gives the mean logits, and the head on each
        # position gives maps whose mean is the logit.
        embedding = torch.unflatten(self.network.embed(features), 0, (2, -1)).mean(dim=0)
        logits = self.network.head(embedding)
        maps = functional.conv2d(features, self.network.head.weight[:, :, None, None])
        maps = torch.unflatten(maps, 0, (2, -1))
        maps = (maps[0] + maps[1].flip(3)) / 2
        if self.orientation is not None:
            maps = rotate_quarters(maps, orientations // 2)
        return InferenceOutput((logits / self.temperature).softmax(dim=1), embedding, maps)


def fuse_batch_norm(network: EmotionNet) -> EmotionNet:
    """Return a copy of a trained network with batch normalization folded into the convolutions."""
    fused = copy.deepcopy(network).eval()
    for block in fused.modules():
        if isinstance(block, nn.Sequential):
            for index, (layer, following) in enumerate(pairwise(block)):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                    block[index], block[index + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return fused


def preprocess(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels (image, 64, 64) to the network's input, standardized float (image, 1, 48, 48)."""
    gray = pixels[:, None].float() / 255
    size = (INPUT_SIZE_PX, INPUT_SIZE_PX)
    return standardize(functional.interpolate(gray, size=size, mode="bilinear", align_corners=False))
