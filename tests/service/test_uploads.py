"""The fast path for upload forms returns the same bytes as the parser, or None."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from starlette.datastructures import Headers

from emotion_assets.core.errors import EmptyImageError
from emotion_service import uploads
from emotion_service.errors import RequestError
from emotion_service.uploads import BodyBudget

PLAIN = b'Content-Disposition: form-data; name="image"; filename="face.jpg"\r\nContent-Type: image/jpeg'

# Most elements of a form, so that they also occur in the wrong places.
_PIECES = some.sampled_from(
    [b"--b", b"\r\n", b"--", b"--b--", b"\r\n--b\r\n", b"\r\n--b--\r\n", b"\r\n\r\n", PLAIN, b"\xff\xd8", b"x", b"-"]
)
_CONTENT = some.lists(_PIECES | some.binary(max_size=8), max_size=6).map(b"".join)


def form(content: bytes, head: bytes = PLAIN, end: bytes = b"\r\n--b--\r\n") -> bytes:
    return b"--b\r\n" + head + b"\r\n\r\n" + content + end


def read_form(body: bytes, content_type: str) -> bytes | str:
    """Return the image in a form, or the code of the error."""
    try:
        return asyncio.run(uploads.image_of_form(Headers({"content-type": content_type}), body))
    except (RequestError, EmptyImageError) as error:
        return error.code


def test_the_usual_form_takes_the_fast_path() -> None:
    """In the spelling of browsers, curl and Python's clients."""
    bare = b'content-disposition: form-data; name="image"; filename=""'
    for head in (PLAIN, PLAIN.lower(), bare, PLAIN.replace(b"face.jpg", "Überraschung 1.jpg".encode())):
        for end in (b"\r\n--b--\r\n", b"\r\n--b--"):
            for content_type in ("multipart/form-data; boundary=b", 'multipart/form-data;boundary="b"'):
                assert uploads.parse_single_file(content_type, form(b"\xff\xd8\r\n--", head, end)) == b"\xff\xd8\r\n--"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        form(b"x", b'Content-Disposition: form-data; name="other"; filename="a"'),
        form(b"x", b'Content-Disposition: form-data; name="image"'),
        form(b"x", PLAIN.replace(b'"image"', b'"Image"')),
        form(b"x", PLAIN.replace(b"face", b'fa\\"ce')),
        form(b"x", PLAIN + b"\r\nContent-Transfer-Encoding: base64"),
        form(b"x\r\n--b\r\n" + PLAIN + b"\r\n\r\ny"),
        form(b"x\r\n--bc"),
        form(b"x", end=b"\r\n--b\r\n"),
        form(b"x", end=b"--b--\r\n"),
        form(b"x", end=b"\r\n--b--\r\nafter"),
        form(b"x") + b"\r\n",
    ],
)
def test_any_other_form_takes_the_parser(body: bytes) -> None:
    """The fast path reports no errors."""
    assert uploads.parse_single_file("multipart/form-data; boundary=b", body) is None


@pytest.mark.parametrize("head", [b'name="image"', b"name=\"image\"; filename*=UTF-8''face.jpg"])
def test_an_image_without_a_file_name_is_read(head: bytes) -> None:
    """As some clients send bytes; they are no text, and may be larger than a text field."""
    content = b"\xff\xd8\xff" + bytes(range(256)) * 8000
    body = form(content, b"Content-Disposition: form-data; " + head + b"\r\nContent-Type: image/jpeg")

    assert read_form(body, "multipart/form-data; boundary=b") == content


@settings(deadline=None)
@given(
    content=_CONTENT,
    head=some.sampled_from([PLAIN, PLAIN.lower(), PLAIN + b"\r\nX-Other: 1"]),
    end=some.sampled_from([b"\r\n--b--\r\n", b"\r\n--b--", b"--b--", b"\r\n--b\r\n", b""]),
    content_type=some.sampled_from(
        [
            "multipart/form-data; boundary=b",
            "Multipart/Form-Data; boundary=b; charset=x",
            'multipart/form-data; boundary="b"',
            'multipart/form-data; boundary="b',
            'multipart/form-data; boundary=b"',
        ]
    ),
)
def test_both_paths_read_the_same(content: bytes, head: bytes, end: bytes, content_type: str) -> None:
    """Whatever the image contains, and wherever the form is malformed."""
    body = form(content, head, end)
    found = read_form(body, content_type)
    with patch.object(uploads, "parse_single_file", lambda *_: None):
        assert found == read_form(body, content_type)


def test_the_budget_counts_bodies_and_bytes() -> None:
    """What is over is rejected, and what has ended counts no more."""
    budget = BodyBudget(2, 100)
    for _ in range(3):
        with budget.body() as add, budget.body() as other:
            add(60)
            with pytest.raises(RequestError, match="too many uploads"):
                other(41)
            other(40)
            with pytest.raises(RequestError, match="too many uploads"), budget.body():
                pass
