from __future__ import annotations

import base64
import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from emotion_assets.steps.report_images import contact_sheet, data_uri, encode_svg, label_classes


def test_contact_sheet_lays_images_out_in_rows() -> None:
    """Fifteen images fill two rows of twelve."""
    pixels = np.full((15, 64, 64), 40, dtype=np.uint8)

    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(pixels))).convert("L"))

    assert sheet.shape == (2 * 66, 12 * 66)
    assert sheet[30, 30] < 60
    assert sheet[100, 12 * 66 - 20] > 240


def test_contact_sheet_without_images_is_blank() -> None:
    """No image gives an empty sheet, not an error."""
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(np.empty((0, 64, 64), dtype=np.uint8)))))

    assert sheet.min() > 250


def test_pages_contain_charts_and_sheets() -> None:
    """A chart is SVG, a sheet WebP; each says so."""
    chart, sheet = encode_svg(Figure()), contact_sheet(np.zeros((1, 8, 8), dtype=np.uint8))

    for content, kind in ((chart, "svg+xml"), (sheet, "webp")):
        head, _, encoded = data_uri(content).partition(",")
        assert head == f"data:image/{kind};base64"
        assert base64.b64decode(encoded) == content
    assert ET.fromstring(chart).tag.endswith("svg")
    assert Image.open(io.BytesIO(sheet)).format == "WEBP"


def test_long_names_of_classes_do_not_overlap() -> None:
    """They are vertical, and shortened to 20 letters."""
    axes = Figure().subplots()
    label_classes(axes, ["happy", "sad"], is_matrix=True)
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {0}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["happy", "sad"]

    label_classes(axes, ["eher unzufrieden", "verärgert", "ängstlich oder besorgt"])

    assert {label.get_rotation() for label in axes.get_xticklabels()} == {90}
    assert axes.get_xticklabels()[2].get_text() == "ängstlich oder beso…"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["生气", "悲しい", "غاضب", "क्रोधित", "<script>&amp;"])
def test_charts_leave_text_to_the_browser(name: str) -> None:
    """Names in any script stay text, without a warning of Matplotlib's, whose fonts lack most of them."""
    figure = Figure(layout="tight")
    figure.subplots().set_title(name)

    texts = [element.text for element in ET.fromstring(encode_svg(figure)).iter() if element.text]

    assert name in texts
