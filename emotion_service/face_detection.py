"""Find the faces in an image, and cut one out the way that the training faces were cut.

MTCNN (Zhang et al. 2016, "Joint face detection and alignment using multitask cascaded convolutional networks"):
a small network proposes windows at every place and size, two larger ones refine and reject them. The weights are
those of the package `mtcnn`, written as ONNX by scripts/convert_face_detector.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from emotion_assets.core.errors import ImageError

WORKING_SIDE_PX: Final = 320
"""Larger images are reduced to about this shorter side before faces are looked for."""

_NETWORKS_DIR: Final = Path(__file__).with_name("face_detector")
_LONGEST_SIDE_PX: Final = 480
_SMALLEST_FACE: Final = 28 / _LONGEST_SIDE_PX
"""As a fraction of the longer side; smaller faces say little about an emotion."""
_WINDOW_PX: Final = 12
_STRIDE_PX: Final = 2
_SMALL_PX: Final = 128
_PYRAMID_STEP: Final = 0.709
_MAX_WINDOWS: Final = 300

# As the authors set them; benchmarks/face_finding.md tells what they find.
_PROPOSAL_SCORE: Final = 0.6
_REFINEMENT_SCORE: Final = 0.7
_FACE_SCORE: Final = 0.7

# FER2013's faces were cut out around another detector's boxes. Measured by finding the faces in its crops: they have
# the same center, and this fraction of the box's height as their side.
_CROP_SIDE: Final = 0.93
# Above this fraction of the shorter side, cutting again costs as much accuracy as it gains (benchmarks/face_finding.md).
_FILLS: Final = 0.75

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Face:
    """Where a face is, in fractions of the image's width and height, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    score: float
    """How sure the last network is, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Region:
    """What the network is shown, in fractions of the image's width and height; it may reach over the edges."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE: Final = Region(0, 0, 1, 1)


class NoFaceError(ImageError):
    """An image shows no face that could be found."""

    code = "no_face"


class FaceDetector:
    """The three networks, loaded. Finding is safe from several threads."""

    def __init__(self) -> None:
        """Load the networks, one compute thread each."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._proposal, self._refinement, self._output = (
            onnxruntime.InferenceSession(_NETWORKS_DIR / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in ("proposal", "refinement", "output")
        )

    def detect(self, image: Image.Image) -> list[Face]:
        """Return the faces of a gray image, the largest first."""
        scale = _LONGEST_SIDE_PX / max(image.size)
        width, height = (max(_WINDOW_PX, round(side * scale)) for side in image.size)
        gray = image.resize((width, height), Image.Resampling.BILINEAR)
        boxes = self._propose(gray)
        for network, side_px, least in ((self._refinement, 24, _REFINEMENT_SCORE), (self._output, 48, _FACE_SCORE)):
            if not len(boxes):
                return []
            boxes = _refined(network, gray, boxes, side_px, least)
        fractions = boxes[:, :4] / (width, height, width, height)
        areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
        return [Face(*row) for row in np.column_stack([fractions, boxes[:, 4]])[np.argsort(-areas)].tolist()]

    def region(self, image: Image.Image) -> Region:
        """Return the square around the largest face of a gray image.

        An image of 128 pixels or less is taken as a face that somebody cut out already.

        Raises:
            NoFaceError: none was found.
        """
        if max(image.size) <= _SMALL_PX:
            return WHOLE
        faces = self.detect(image)
        if not faces:
            raise NoFaceError(
                "No face was found in the image. Come closer or turn to the camera; "
                "if it shows nothing but a face, send it without face=find."
            )
        return face_region(image, faces[0])

    def _propose(self, gray: Image.Image) -> Floats:
        """Return windows that may hold a face, float32 (window, left·top·right·bottom·score), in pixels."""
        found = []
        scale = _WINDOW_PX / (_SMALLEST_FACE * _LONGEST_SIDE_PX)
        while min(gray.size) * scale >= _WINDOW_PX:
            level = gray.resize((round(gray.width * scale), round(gray.height * scale)), Image.Resampling.BOX)
            scores, offsets = self._proposal.run(["scores", "offsets"], {"pixels": np.asarray(level)[None]})
            down, across = np.nonzero(scores[0, 1] > _PROPOSAL_SCORE)
            corners = np.stack([across, down, across, down], axis=1) * _STRIDE_PX
            corners = corners + np.array([0, 0, _WINDOW_PX, _WINDOW_PX]) + offsets[0, :, down, across] * _WINDOW_PX
            boxes = np.column_stack([corners / scale, scores[0, 1, down, across]]).astype(np.float32)
            found.append(_non_maximum_suppression(boxes, 0.5))
            scale *= _PYRAMID_STEP
        return _non_maximum_suppression(np.concatenate(found), 0.7) if found else np.empty((0, 5), np.float32)


def face_region(image: Image.Image, face: Face) -> Region:
    """Return the square around a face that the network is shown, cut as the training faces were.

    A face that all but fills its image needs no cut: the whole of it is the region.
    """
    width, height = image.size
    side = _CROP_SIDE * (face.bottom - face.top) * height
    if side >= _FILLS * min(width, height):
        return WHOLE
    center_x, center_y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    across, down = side / width / 2, side / height / 2
    return Region(center_x - across, center_y - down, center_x + across, center_y + down)


def crop_region(image: Image.Image, region: Region) -> Image.Image:
    """Cut out a region; what lies outside of the image repeats its edge."""
    if region == WHOLE:
        return image
    width, height = image.size
    fractions = np.array([region.left, region.top, region.right, region.bottom])
    corners = np.rint(fractions * (width, height, width, height))
    left, top, right, bottom = corners.astype(int)
    before = max(0, -top), max(0, -left)
    after = max(0, bottom - height), max(0, right - width)
    inside = image.crop((max(0, left), max(0, top), min(width, right), min(height, bottom)))
    return Image.fromarray(np.pad(np.asarray(inside), tuple(zip(before, after, strict=True)), mode="edge"))


def _refined(
    network: onnxruntime.InferenceSession, gray: Image.Image, boxes: Floats, side_px: int, least: float
) -> Floats:
    """Look at each window as a square of `side_px` and keep the adjusted ones that score at least `least`."""
    squares = _squares(boxes)
    windows = np.stack([np.asarray(_window(gray, square, side_px)) for square in squares])
    scores, offsets = network.run(["scores", "offsets"], {"pixels": windows})
    sides = squares[:, 2] - squares[:, 0]
    adjusted = np.column_stack([squares + offsets * sides[:, None], scores[:, 1]]).astype(np.float32)
    return _non_maximum_suppression(adjusted[scores[:, 1] > least], 0.7 if side_px == 24 else 0.4)


def _squares(boxes: Floats) -> Floats:
    centers = (boxes[:, :2] + boxes[:, 2:4]) / 2
    halves = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centers - halves, centers + halves], axis=1)


def _window(gray: Image.Image, square: Floats, side_px: int) -> Image.Image:
    left, top, right, _ = square
    # One affine step cuts and scales; what lies outside is black, as the networks were trained.
    step = (right - left) / side_px
    data = (step, 0, left + step / 2 - 0.5, 0, step, top + step / 2 - 0.5)
    return gray.transform((side_px, side_px), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def _non_maximum_suppression(boxes: Floats, most: float) -> Floats:
    """Keep the best of boxes that overlap by more than `most` of their union (non-maximum suppression)."""
    boxes = boxes[np.argsort(-boxes[:, 4])][:_MAX_WINDOWS]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    left = np.arange(len(boxes))
    while len(left):
        best, others = left[0], left[1:]
        kept.append(best)
        corners = np.minimum(boxes[best, 2:4], boxes[others, 2:4]) - np.maximum(boxes[best, :2], boxes[others, :2])
        common = np.prod(np.maximum(0, corners), axis=1)
        left = others[common / (areas[best] + areas[others] - common) <= most]
    return boxes[kept]
