"""Take images out of a request, with the size limit kept while the body streams in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from emotion_assets.core.errors import EmptyImageError, ImageTooLargeError
from emotion_assets.core.images import MAX_IMAGE_BYTES
from emotion_service.errors import RequestError

FIELD_NAME = "image"
BATCH_FIELD_NAME = "images"
MAX_BATCH_IMAGES = 64
MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_JSON_BYTES = 4096
MAX_HELD_BYTES = 256 * 1024 * 1024

_BOUNDARY: Final = re.compile(
    r'multipart/form-data; ?boundary=(?:"([A-Za-z0-9_-]{1,70})"|([A-Za-z0-9_-]{1,70}))', re.IGNORECASE
)
_PLAIN_FILE: Final = re.compile(
    rb'(?i:content-disposition): form-data; name="%b"; filename="[^"\\%%;\r\n]*"'
    rb"(\r\n(?i:content-type): [a-zA-Z0-9/.+-]+)?" % FIELD_NAME.encode()
)
# Boundaries, part headers and a few small fields around the image.
_MULTIPART_OVERHEAD_BYTES = 64 * 1024
_MAX_PART_HEAD_BYTES = 1024
# What is too large is thrown away as it comes, up to here: a client that is cut off while it sends
# often sees a broken connection instead of the answer.
_MAX_DRAINED_BYTES = 8 * MAX_IMAGE_BYTES


class BodyBudget:
    """What one worker holds of bodies that are not answered yet: they must neither fill memory nor keep others out."""

    def __init__(self, max_bodies: int) -> None:
        """Allow `max_bodies` at a time, and 256 MiB of them together."""
        self._max_bodies = max_bodies
        self._num_bodies = self._num_bytes = 0

    @contextlib.contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Count one body while it is held; what is yielded is told of every chunk's size.

        Raises:
            RequestError: too many bodies, or too many bytes of them, are held already (429).
        """
        held = 0

        def take(num_bytes: int) -> None:
            nonlocal held
            if self._num_bytes + num_bytes > MAX_HELD_BYTES:
                raise _too_busy()
            held += num_bytes
            self._num_bytes += num_bytes

        if self._num_bodies >= self._max_bodies:
            raise _too_busy()
        self._num_bodies += 1
        try:
            yield take
        finally:
            self._num_bodies -= 1
            self._num_bytes -= held


def _too_busy() -> RequestError:
    message = "Too many uploads at once. Try again in a second."
    return RequestError(429, "too_many_requests", message, {"Retry-After": "1"})


async def read_images(request: Request, budget: BodyBudget) -> list[bytes]:
    """Return the bytes of the images in the fields `images`, in their order; an empty part is empty bytes.

    Raises:
        ImageTooLargeError: the body is over 32 MiB.
        EmptyImageError: there is no such field.
        RequestError: the body is no form (415 or 400), has more than 64 images (400), or the worker holds too many
            bodies already (429).
    """
    _reject_encoding(request)
    if _media_type(request) != "multipart/form-data":
        raise RequestError(
            415,
            "unsupported_media_type",
            f"Send up to {MAX_BATCH_IMAGES} images as multipart/form-data in fields named {BATCH_FIELD_NAME!r}.",
        )
    body = await _read_body(request, MAX_BATCH_BYTES, budget)
    # A few more than the limit, so that the answer can say what is wrong.
    parts = await _parts_of_form(request.headers, body, BATCH_FIELD_NAME, MAX_BATCH_IMAGES + 8) if body else []
    if not parts:
        raise EmptyImageError(f"There is not an image. Send some in fields named {BATCH_FIELD_NAME!r}.")
    if len(parts) > MAX_BATCH_IMAGES:
        raise RequestError(400, "too_many_images", f"There are more than {MAX_BATCH_IMAGES} images. Send fewer.")
    return parts


async def read_json_body(request: Request) -> bytes:
    """Return a small JSON body.

    Raises:
        RequestError: the body is over 4 KiB (413), or of another kind (415).
    """
    _reject_encoding(request)
    if _media_type(request) != "application/json":
        raise RequestError(415, "unsupported_media_type", "Send JSON with Content-Type: application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise RequestError(413, "body_too_large", f"The body is larger than {MAX_JSON_BYTES:,} bytes.")
    return bytes(body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _reject_encoding(request: Request) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "unsupported_encoding", "The body is compressed. Send it without Content-Encoding.")


async def read_image(request: Request, budget: BodyBudget) -> bytes:
    """Return the bytes of the image that a request carries: a raw `image/*` body or the field `image`.

    The sender's file name and type are not looked at; the content decides later.

    Raises:
        ImageTooLargeError: the body is over the limit, as announced or while it arrives.
        EmptyImageError: there is not an image, or an empty one.
        RequestError: the body is compressed or of another kind (415), no proper form (400), or the worker holds too
            many bodies already (429).
    """
    _reject_encoding(request)
    media_type = _media_type(request)
    if media_type.startswith("image/"):
        body = await _read_body(request, MAX_IMAGE_BYTES, budget)
        if not body:
            raise _no_image()
        return body
    if media_type == "multipart/form-data":
        body = await _read_body(request, MAX_IMAGE_BYTES + _MULTIPART_OVERHEAD_BYTES, budget)
        return await _image_of_form(request.headers, body)
    if not media_type and request.headers.get("content-length", "0") == "0":
        raise _no_image()
    raise RequestError(
        415,
        "unsupported_media_type",
        f"Send the image as multipart/form-data in the field {FIELD_NAME!r}, or as a raw body of type image/*.",
    )


async def _read_body(request: Request, limit_bytes: int, budget: BodyBudget) -> bytes:
    announced = request.headers.get("content-length", "")
    announced_bytes = int(announced) if announced.isascii() and announced.isdecimal() else 0
    if announced_bytes > _MAX_DRAINED_BYTES:
        raise _too_large(limit_bytes)
    body = bytearray()
    num_received = 0
    with budget.body() as take:
        async for chunk in request.stream():
            num_received += len(chunk)
            if max(num_received, announced_bytes) <= limit_bytes:
                take(len(chunk))
                body += chunk
            elif num_received > _MAX_DRAINED_BYTES:
                break
    if max(num_received, announced_bytes) > limit_bytes:
        raise _too_large(limit_bytes)
    return bytes(body)


async def _image_of_form(headers: Headers, body: bytes) -> bytes:
    if not body:
        raise _no_image()
    image = _only_file(headers.get("content-type", ""), body)
    parts = [image] if image is not None else await _parts_of_form(headers, body, FIELD_NAME, 4)
    if len(parts) > 1:
        raise RequestError(400, "several_images", f"The field {FIELD_NAME!r} came {len(parts)} times. Send one.")
    if not parts or not parts[0]:
        raise _no_image()
    if len(parts[0]) > MAX_IMAGE_BYTES:
        raise _too_large(MAX_IMAGE_BYTES)
    return parts[0]


def _only_file(content_type: str, body: bytes) -> bytes | None:
    """Return the image of the form that nearly every client sends, or None if it may be any other.

    One part, the file in its field, written without escapes: reading that takes a tenth of a parser's time.
    """
    boundary = _BOUNDARY.fullmatch(content_type)
    if not boundary:
        return None
    line = b"--" + (boundary[1] or boundary[2]).encode()
    end = len(body) - len(line) - (6 if body.endswith(b"--\r\n") else 4)
    start = body.find(b"\r\n\r\n", 0, _MAX_PART_HEAD_BYTES)
    if start < 0 or not body.startswith(line + b"\r\n") or not _PLAIN_FILE.fullmatch(body, len(line) + 2, start):
        return None
    if body.find(b"\r\n" + line, start + 4) != end or not body.startswith(b"--", end + 2 + len(line)):
        return None
    return body[start + 4 : end]


async def _parts_of_form(headers: Headers, body: bytes, name: str, max_files: int) -> list[bytes]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = _FormParser(headers, stream(), max_files=max_files, max_fields=max_files + 16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(
            400, "malformed_form", f"The form cannot be read ({error.message}). Send it again."
        ) from error
    except (KeyError, ValueError) as error:  # a missing boundary, undecodable part headers
        raise RequestError(400, "malformed_form", "The form cannot be read (no boundary or bad headers).") from error
    else:
        return [
            await part.read() if isinstance(part, UploadFile) else part.encode("utf-8", "surrogatepass")
            for part in form.getlist(name)
        ]
    finally:
        parser.close()


class _FormParser(MultiPartParser):
    """Keeps the files of a form in memory, where the body is already, and can close all of them."""

    spool_max_size = MAX_BATCH_BYTES

    def close(self) -> None:
        """Close every file; that of a part without an end is in no form."""
        for file in self._files_to_close_on_error:
            file.close()


def _no_image() -> EmptyImageError:
    return EmptyImageError(f"There is not an image. Send one in the field {FIELD_NAME!r} or as a raw image/* body.")


def _too_large(limit_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"The upload is larger than {limit_bytes:,} bytes. Send a smaller copy.")
