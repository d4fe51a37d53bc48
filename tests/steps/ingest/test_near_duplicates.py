from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy.ndimage import gaussian_filter

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import Pixels, decode_image
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.ingest import near_duplicates
from emotion_assets.steps.ingest import store as store_module
from emotion_assets.steps.ingest.decode import DecodedContent
from emotion_assets.steps.ingest.near_duplicates import (
    TooManyPairsError,
    compare_new_contents,
    component_labels,
    compute_descriptors,
    describe_search,
    duplicate_groups,
    similar_pairs,
)
from emotion_assets.steps.ingest.scan import SourceFile
from emotion_assets.steps.ingest.store import STORE_NAME, Store


def pixels_of(image: Image.Image, quality: int = 90) -> np.ndarray:
    buffer = io.BytesIO()
    image.convert("L").save(buffer, "JPEG", quality=quality)
    return decode_image(buffer.getvalue()).pixels


ORIGINAL = Image.open(io.BytesIO(draw_face("happy", np.random.default_rng(3)))).convert("L")


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.resize((48, 48)).resize((200, 200)),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: ImageEnhance.Brightness(image).enhance(0.6),
        lambda image: ImageEnhance.Contrast(image).enhance(0.6),
        lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
        lambda image: image.crop((1, 1, 95, 95)),
        lambda image: image.crop((2, 2, 94, 94)),
    ],
    ids=["recoded", "resized", "mirrored", "darker", "flatter", "blurred", "cropped", "cropped more"],
)
def test_a_changed_copy_is_a_near_duplicate(change: object) -> None:
    """An image is found again after common changes."""
    copy = change(ORIGINAL)  # type: ignore[operator]
    images = np.stack([pixels_of(ORIGINAL), pixels_of(copy, quality=50)])

    assert similar_pairs(compute_descriptors(images), np.zeros(2, dtype=bool)).tolist() == [[0, 1]]


def test_different_faces_are_not_near_duplicates() -> None:
    """Among 200 drawn faces there are hardly any pairs."""
    rng = np.random.default_rng(0)
    images = np.stack([decode_image(draw_face(EMOTIONS[i % 5], rng)).pixels for i in range(200)])

    assert len(similar_pairs(compute_descriptors(images), np.zeros(200, dtype=bool))) <= 2


def test_faint_images_are_not_blank() -> None:
    """Two faces of a dozen gray levels are still told apart."""
    faces = [draw_face(emotion, np.random.default_rng(seed)) for emotion, seed in (("happy", 3), ("sad", 8))]
    faint = [ImageEnhance.Contrast(Image.open(io.BytesIO(face)).convert("L")).enhance(0.05) for face in faces]
    images = np.stack([pixels_of(image) for image in faint])

    assert np.ptp(images[0]) < 20
    assert similar_pairs(compute_descriptors(images), np.zeros(2, dtype=bool)).tolist() == []


def test_blank_images_count_as_one_image() -> None:
    """Images without structure are all alike, whatever their gray."""
    images = np.stack([np.full((64, 64), value, dtype=np.uint8) for value in (0, 90, 255)])

    assert len(similar_pairs(compute_descriptors(images), np.zeros(3, dtype=bool))) == 3


def test_pairs_found_incrementally_are_those_found_at_once() -> None:
    """Comparing only what is new misses no pair and finds no others."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 255, (30, 64, 64)).astype(np.uint8)
    images = np.concatenate([base, base[::2], 255 - base[::3], base[::5, :, ::-1]])
    descriptors = compute_descriptors(images)
    at_once = {tuple(pair) for pair in similar_pairs(descriptors, np.zeros(len(images), dtype=bool)).tolist()}

    stepwise: set[tuple[int, ...]] = set()
    for known, total in ((0, 20), (20, 41), (41, len(images))):
        is_compared = np.arange(total) < known
        stepwise |= {tuple(pair) for pair in similar_pairs(descriptors[:total], is_compared).tolist()}

    assert at_once == stepwise
    assert len(at_once) >= 21


def test_pairs_are_found_wherever_they_are() -> None:
    """Among more images than are compared at once, all of them new or only some."""
    images = np.random.default_rng(6).integers(0, 255, (1300, 64, 64)).astype(np.uint8)
    pairs = [[0, 1299], [5, 9], [1030, 1100], [1280, 1295]]
    for first, second in pairs:
        images[second] = images[first, :, ::-1]
    descriptors = compute_descriptors(images)

    at_once, later = (similar_pairs(descriptors, np.arange(1300) < num_compared) for num_compared in (0, 1000))
    odd_ones = similar_pairs(descriptors, np.arange(1300) % 2 == 0)

    assert at_once.tolist() == pairs
    assert odd_ones.tolist() == [pair for pair in pairs if pair != [1030, 1100]]
    assert later.tolist() == [pair for pair in pairs if pair != [5, 9]]


def test_similarity_is_exact_in_any_batch() -> None:
    """Descriptors are integers whose products are exact in float32, so no rounding decides a pair."""
    descriptors = compute_descriptors(np.random.default_rng(2).integers(0, 255, (50, 64, 64)).astype(np.uint8))

    exact = descriptors.astype(np.int64) @ descriptors.astype(np.int64).T
    quick = descriptors.astype(np.float32) @ descriptors.astype(np.float32).T

    assert (exact == quick).all()
    assert np.abs(np.sqrt(np.diag(exact)) - 2048).max() < 8


def test_group_names_do_not_depend_on_the_order() -> None:
    """A chain of pairs is one group, named by its smallest content hash."""
    hashes = {1: "aa", 2: "bb", 3: "cc", 4: "dd", 5: "ee"}

    names = duplicate_groups(np.array([[1, 2], [2, 3], [4, 5]]), hashes)
    others = duplicate_groups(np.array([[4, 5], [2, 3], [1, 2]]), hashes)

    assert names == others
    assert names[1] == names[2] == names[3] == hashlib.sha256(b"aa").hexdigest()[:12]
    assert names[4] == names[5] != names[1]
    assert duplicate_groups(np.empty((0, 2), dtype=np.int64), hashes) == {}


def test_component_labels_number_every_node() -> None:
    """Nodes without an edge are components of their own."""
    labels = component_labels(np.array([[0, 3], [3, 1]]), 5)

    assert labels[0] == labels[1] == labels[3]
    assert len(set(labels.tolist())) == 3


def test_too_many_pairs_are_rejected_at_once() -> None:
    """Two hundred equal images are 19,900 pairs; each counts once."""
    descriptors = compute_descriptors(np.zeros((200, 64, 64), dtype=np.uint8))

    assert len(similar_pairs(descriptors, np.zeros(200, dtype=bool), max_pairs=19_900)) == 19_900
    with pytest.raises(TooManyPairsError):
        similar_pairs(descriptors, np.zeros(200, dtype=bool), max_pairs=19_899)


def test_many_images_are_searched_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pairs are those of all comparisons but for a few, at once and step by step."""
    rng = np.random.default_rng(4)
    base = np.stack([gaussian_filter(rng.normal(128, 400, (64, 64)), 4) for _ in range(400)]).clip(0, 255)
    images = np.concatenate([base, base[::4, :, ::-1] + rng.normal(0, 4, (100, 64, 64))]).clip(0, 255).astype(np.uint8)
    descriptors = compute_descriptors(images)
    none = np.zeros(len(images), dtype=bool)
    exact = {tuple(pair) for pair in similar_pairs(descriptors, none).tolist()}
    monkeypatch.setattr(near_duplicates, "MAX_EXACT_IMAGES", 100)

    at_once = {tuple(pair) for pair in similar_pairs(descriptors, none).tolist()}
    stepwise = {tuple(pair) for pair in similar_pairs(descriptors, np.arange(500) < 400).tolist()}

    assert len(exact) >= 100
    assert at_once <= exact
    assert len(at_once) >= 0.95 * len(exact)
    assert len(stepwise) >= 0.9 * len({pair for pair in exact if pair[1] >= 400})
    assert describe_search(101).startswith("in cells")
    with pytest.raises(TooManyPairsError):
        similar_pairs(descriptors, none, max_pairs=len(at_once) - 1)


def add(store: Store, images: Pixels, first: int = 0) -> None:
    """Add images to a store as the content of files that are numbered from `first`."""
    hashes = [f"{number:064}" for number in range(first, first + len(images))]
    entries = [
        (
            SourceFile(f"Happy/{name}.png".encode(), "happy", 10, 1, 1),
            DecodedContent(name, 64, 64, "L", "PNG", image.tobytes()),
        )
        for name, image in zip(hashes, images, strict=True)
    ]
    descriptors = [each.tobytes() for each in compute_descriptors(images)]
    store.add(entries, dict(zip(hashes, descriptors, strict=True)))


def test_the_pairs_of_earlier_ingests_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film that comes in parts is as many pairs as a whole one."""
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 10)
    with Store(tmp_path / STORE_NAME) as store:
        add(store, np.zeros((4, 64, 64), dtype=np.uint8))
        compare_new_contents(store)
        assert len(store.pairs()) == 6
        add(store, np.zeros((2, 64, 64), dtype=np.uint8), first=4)

        with pytest.raises(UnusableDataError, match="More than 10 pairs"):
            compare_new_contents(store)


def test_images_that_another_decoder_tells_apart_are_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was near under the old one is compared again."""
    images = np.random.default_rng(7).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    with Store(tmp_path / STORE_NAME) as store:
        add(store, images[[0, 1, 0]])
        compare_new_contents(store)
        assert store.pairs().tolist() == [[1, 3]]
        monkeypatch.setattr(store_module, "DECODER_VERSION", "newer")
        add(store, images)
        compare_new_contents(store)

        assert store.pairs().tolist() == []
        assert not store.has_uncompared()
