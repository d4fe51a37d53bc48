"""Detect faces in an image, and crop one as the training faces were cropped.

MTCNN (Zhang et al. 2016, "Joint face detection and alignment using multitask cascaded convolutional networks"):
a small network proposes windows of an image pyramid, two larger ones refine and reject them. The weights are
those of the package `mtcnn`, converted to ONNX by scripts/convert_face_detector.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from emotion_assets.core.errors import ImageError
from emotion_service.schemas import FaceRegion

WORKING_SIDE_PX: Final = 320
"""Larger images are reduced to about this shorter side before detection."""

_NETWORKS_DIR: Final = Path(__file__).with_name("face_detector")
_LONGEST_SIDE_PX: Final = 480
_SMALLEST_FACE_PX: Final = 28
_WINDOW_PX: Final = 12
_STRIDE_PX: Final = 2
_SMALL_PX: Final = 128
_PYRAMID_STEP: Final = 0.709
_MAX_WINDOWS: Final = 300

# The authors' thresholds; benchmarks/face_detection.md has their recall.
_PROPOSAL_SCORE: Final = 0.6
_REFINEMENT_SCORE: Final = 0.7
_FACE_SCORE: Final = 0.7

# FER2013 was cropped with another detector. Measured by detecting the faces in its crops: they are squares with the
# same center and this fraction of the box's height as their side.
_CROP_SIDE: Final = 0.93
# Above this fraction of the shorter side, a second crop costs as much accuracy as it gains
# (benchmarks/face_detection.md).
_MAX_CROP_SIDE: Final = 0.75

Floats = npt.NDArray[np.float32]


WHOLE: Final = FaceRegion(left=0, top=0, right=1, bottom=1)


class NoFaceError(ImageError):
    """No face was detected in an image."""

    code = "no_face"


class FaceDetector:
    """The three networks, loaded. Safe to use from several threads."""

    def __init__(self) -> None:
        """Load the networks, with one compute thread each."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._proposal, self._refinement, self._output = (
            onnxruntime.InferenceSession(_NETWORKS_DIR / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in ("proposal", "refinement", "output")
        )

    def detect(self, image: Image.Image) -> list[FaceRegion]:
        """Return the boxes of the faces in an image of mode L, the largest first."""
        scale = _LONGEST_SIDE_PX / max(image.size)
        width, height = (max(_WINDOW_PX, round(side * scale)) for side in image.size)
        gray = image.resize((width, height), Image.Resampling.BILINEAR)
        boxes = self._propose(gray)
        for network, side_px, min_score, max_overlap in (
            (self._refinement, 24, _REFINEMENT_SCORE, 0.7),
            (self._output, 48, _FACE_SCORE, 0.4),
        ):
            if not len(boxes):
                return []
            boxes = _non_maximum_suppression(_refine(network, gray, boxes, side_px, min_score), max_overlap)
        areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
        fractions = boxes[np.argsort(-areas), :4] / (width, height, width, height)
        return [FaceRegion(**dict(zip(FaceRegion.model_fields, row, strict=True))) for row in fractions.tolist()]

    def find_region(self, image: Image.Image) -> FaceRegion:
        """Return the square around the largest face in an image of mode L.

        An image of at most 128 pixels is taken as a cropped face.

        Raises:
            NoFaceError: no face was detected.
        """
        if max(image.size) <= _SMALL_PX:
            return WHOLE
        faces = self.detect(image)
        if not faces:
            raise NoFaceError(
                "No face was found in the image. Come closer or turn to the camera. "
                "If the image is a cropped face, send it without face=find."
            )
        return face_region(image, faces[0])

    def _propose(self, gray: Image.Image) -> Floats:
        """Return windows that may contain a face, float32 (window, left·top·right·bottom·score), in pixels."""
        found = []
        scale = _WINDOW_PX / _SMALLEST_FACE_PX
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


def face_region(image: Image.Image, face: FaceRegion) -> FaceRegion:
    """Return the square around a face that the training faces would have had; the whole image if a face fills it."""
    width, height = image.size
    side = _CROP_SIDE * (face.bottom - face.top) * height
    if side >= _MAX_CROP_SIDE * min(width, height):
        return WHOLE
    center_x, center_y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    across, down = side / width / 2, side / height / 2
    return FaceRegion(left=center_x - across, top=center_y - down, right=center_x + across, bottom=center_y + down)


def crop_region(image: Image.Image, region: FaceRegion) -> Image.Image:
    """Crop a region; pixels outside of the image repeat its edge."""
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


def _refine(
    network: onnxruntime.InferenceSession, gray: Image.Image, boxes: Floats, side_px: int, min_score: float
) -> Floats:
    """Resize each window to a square of `side_px`, and return the adjusted ones that score more than `min_score`."""
    squares = _squares(boxes)
    windows = np.stack([np.asarray(_window(gray, square, side_px)) for square in squares])
    scores, offsets = network.run(["scores", "offsets"], {"pixels": windows})
    sides = squares[:, 2] - squares[:, 0]
    adjusted = np.column_stack([squares + offsets * sides[:, None], scores[:, 1]]).astype(np.float32)
    accepted: Floats = adjusted[scores[:, 1] > min_score]
    return accepted


def _squares(boxes: Floats) -> Floats:
    centers = (boxes[:, :2] + boxes[:, 2:4]) / 2
    halves = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centers - halves, centers + halves], axis=1)


def _window(gray: Image.Image, square: Floats, side_px: int) -> Image.Image:
    left, top, right, _ = square
    # One affine transform crops and scales; pixels outside are black, as in the networks' training.
    step = (right - left) / side_px
    # Pillow maps centers of pixels to centers by itself.
    data = (step, 0, left, 0, step, top)
    return gray.transform((side_px, side_px), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def _non_maximum_suppression(boxes: Floats, max_overlap: float) -> Floats:
    """Keep the best of boxes whose intersection over union exceeds `max_overlap`."""
    boxes = boxes[np.argsort(-boxes[:, 4])][:_MAX_WINDOWS]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    remaining = np.arange(len(boxes))
    while len(remaining):
        best, others = remaining[0], remaining[1:]
        kept.append(best)
        corners = np.minimum(boxes[best, 2:4], boxes[others, 2:4]) - np.maximum(boxes[best, :2], boxes[others, :2])
        common = np.prod(np.maximum(0, corners), axis=1)
        remaining = others[common / (areas[best] + areas[others] - common) <= max_overlap]
    return boxes[kept]
