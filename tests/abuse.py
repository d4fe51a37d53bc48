"""Abusive and malformed requests, as raw bytes, each with its acceptable statuses."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
ANY_400 = frozenset({400, 405, 413, 414, 415, 422, 431})

HOSTILE_NAMES = (
    "../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/shadow",
    "C:\\boot.ini",
    "face.jpg.exe",
    "face.php",
    ".htaccess",
    "con",
    "nul.jpg",
    "a" * 300,
    "a" * 5000,
    "face\x00.jpg",
    "%00.jpg",
    "%2e%2e%2f",
    "<script>alert(1)</script>.jpg",
    "=cmd|'/c calc'!A0",
    "+1+1",
    "-2",
    "@SUM(1)",
    "\tface.jpg",
    "'; DROP TABLE predictions; --",
    "$(reboot).jpg",
    "`reboot`",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "\u202egpj.exe",
    "\x1b[31mred",
    "фото.jpg",
    "写真.jpg",
    "😀.jpg",
    "",
    " ",
    "~root",
)


@dataclass(frozen=True)
class Case:
    """One request and its acceptable statuses."""

    name: str
    raw: bytes
    statuses: frozenset[int]


def http(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, version: str = "HTTP/1.1"
) -> bytes:
    """Return a request that closes its connection; a header with an empty value is omitted."""
    lines = {"Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method} {path} {version}\r\n{head}\r\n".encode() + body


def part(content: bytes, name: str = "image", filename: str | None = "face.jpg", kind: str = "image/jpeg") -> bytes:
    """Return one part of a form."""
    file = "" if filename is None else f'; filename="{filename}"'
    header = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\nContent-Type: {kind}\r\n\r\n'
    return header.encode("utf-8", "surrogatepass") + content + b"\r\n"


def form(*parts: bytes, path: str = "/predict", end: bool = True, kind: str = FORM) -> bytes:
    """Return a POST of a form."""
    body = b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")
    return http("POST", path, body, {"Content-Type": kind})


def raw(body: bytes, kind: str = "image/jpeg", path: str = "/predict", **headers: str) -> bytes:
    """Return a POST of a raw body."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return http("POST", path, body, {"Content-Type": kind} | more)


def chunked(*chunks: bytes, kind: str = "image/jpeg", path: str = "/predict") -> bytes:
    """Return a chunked POST; the chunks are sent as given, so they may be malformed."""
    head = http("POST", path, b"", {"Content-Type": kind, "Content-Length": "", "Transfer-Encoding": "chunked"})
    return head + b"".join(chunks)


def chunk(content: bytes) -> bytes:
    """Return one well-formed chunk."""
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def cases(face: bytes) -> Iterator[Case]:
    """Yield every case; `face` is an intact JPEG."""
    for kind in (_forms, _kinds, _names, _framing, _methods, _bodies, _batches, _feedback, _queries):
        yield from kind(face)


def _case(name: str, request: bytes, *statuses: int) -> Case:
    return Case(name, request, frozenset(statuses))


def _forms(face: bytes) -> Iterator[Case]:
    yield _case("an intact form", form(part(face)), 200)
    yield _case("no part at all", form(), 400)
    yield _case("another field", form(part(face, name="file")), 400)
    yield _case("the field as text", form(part(b"hello", filename=None, kind="text/plain")), 415)
    yield _case("an empty file", form(part(b"")), 400)
    yield _case("two files", form(part(face), part(face)), 400)
    yield _case("a file and other fields", form(part(b"x", name="note", filename=None), part(face)), 200)
    yield _case("no boundary", form(part(face), kind="multipart/form-data"), 400)
    yield _case("another boundary", form(part(face), kind="multipart/form-data; boundary=other"), 400)
    yield _case("a boundary of 10 kB", form(part(face), kind=f"multipart/form-data; boundary={'x' * 10_000}"), *ANY_400)
    yield _case("no last boundary", form(part(face), end=False), 400)
    yield _case("cut within the part", form(part(face)[:200], end=False), 400, 422)
    yield _case("5,000 parts", form(*[part(b"x", name=f"f{number}", filename=None) for number in range(5000)]), 400)
    yield _case("500 files", form(*[part(b"x", name=f"f{number}") for number in range(500)]), 400)
    broken = f"--{BOUNDARY}\r\nContent-Disposition form-data\r\n\r\n".encode() + face + b"\r\n"
    yield _case("a broken part header", form(broken), 400)
    nameless = f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\n".encode() + face + b"\r\n"
    yield _case("a part without a name", form(nameless), 400)
    bare = f"--{BOUNDARY}\r\n\r\n".encode() + face + b"\r\n"
    yield _case("a part without headers", form(bare), 400)
    yield _case("a form of junk", form(bytes(range(256)) * 20), 400)
    yield _case("a form in a form", form(part(form(part(face)))), 400)


def _kinds(face: bytes) -> Iterator[Case]:
    for kind in (
        *("image/jpg", "image/png", "image/svg+xml", "image/eps", "text/plain", "application/x-php", "junk", "image/"),
        *("application/vnd.bentoml+pickle", "multipart/form-data"),
    ):
        yield _case(f"a part of type {kind}", form(part(face, kind=kind)), 200)
    for kind in ("image/jpg", "image/png", "image/svg+xml", "image/x-anything", "IMAGE/JPEG", "image/jpeg; charset=x"):
        yield _case(f"a raw body of type {kind}", raw(face, kind), 200)
    for kind in (
        *("text/plain", "application/octet-stream", "application/json", "application/x-www-form-urlencoded"),
        *("application/vnd.bentoml+pickle", "video/mp4", "imagejpeg", "\xe9", "*/*"),
    ):
        yield _case(f"a raw body of type {kind}", raw(face, kind), 415)
    yield _case("a raw body without a type", raw(face, ""), 415)
    for encoding in ("gzip", "br", "deflate", "junk"):
        yield _case(f"a body with encoding {encoding}", raw(face, Content_Encoding=encoding), 415)
    yield _case("encoding identity", raw(face, Content_Encoding="identity"), 200)


def _names(face: bytes) -> Iterator[Case]:
    for name in HOSTILE_NAMES:
        yield _case(f"a file named {name[:40]!r}", form(part(face, filename=name)), 200, 400)
    injected = 'x.jpg"\r\nX-Injected: yes\r\nX: "'
    yield _case("a file name with line ends", form(part(face, filename=injected)), 200, 400)
    starred = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename*=UTF-8''%ff\r\n\r\n".encode()
    yield _case("only an extended file name", form(starred + face + b"\r\n"), 200, 400, 415)
    yield _case("a field name with line ends", form(part(face, name="image\r\nX: y")), 400)


def _framing(face: bytes) -> Iterator[Case]:
    yield _case("chunks", chunked(chunk(face), b"0\r\n\r\n"), 200)
    yield _case("chunks of one byte", chunked(*[chunk(face[i : i + 1]) for i in range(len(face))], b"0\r\n\r\n"), 200)
    yield _case("no byte in chunks", chunked(b"0\r\n\r\n"), 400)
    yield _case("a bad chunk", chunked(b"zz\r\nabc\r\n"), 400)
    yield _case("a chunk of a negative length", chunked(b"-5\r\nabc\r\n"), 400)
    yield _case("a negative length", raw(face, Content_Length="-1"), 400)
    yield _case("a length in words", raw(face, Content_Length="many"), 400)
    yield _case("two lengths", raw(face).replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1), 400)
    both = raw(face).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 1)
    yield _case("a length and chunks", both, 400)
    yield _case("a terabyte announced", raw(b"", Content_Length=str(10**12)), 413)
    yield _case("a body of 11 MiB", raw(bytes(11 * 2**20)), 413)
    yield _case("a form of 11 MiB", form(part(bytes(11 * 2**20))), 413)
    yield _case("11 MiB in chunks", chunked(*[chunk(bytes(2**20))] * 11, b"0\r\n\r\n"), 413)
    yield _case("a header of 100 kB", raw(face, X_Long="x" * 100_000), 431)
    yield _case("2,000 headers", raw(face, **{f"X_{number}": "y" for number in range(2000)}), 431)
    yield _case("a path of 100 kB", http("POST", "/" + "x" * 100_000), 404, *ANY_400)
    yield _case("a query of 60 kB", raw(face, path="/predict?x=" + "y" * 60_000), 200, *ANY_400)
    yield _case("no host", raw(face, Host=""), 200, 400)
    yield _case("a foreign host", raw(face, Host="evil.example"), 200)
    yield _case("a range", raw(face, Range="bytes=0-10"), 200)
    yield _case("a foreign origin", raw(face, Origin="https://evil.example"), 200)
    yield _case("HTTP/1.0", http("POST", "/predict", face, {"Content-Type": "image/jpeg"}, "HTTP/1.0"), 200)
    yield _case("HTTP/9.9", http("POST", "/predict", face, {"Content-Type": "image/jpeg"}, "HTTP/9.9"), 200, 400, 505)
    yield _case("a line of junk", b"\x00\xff junk\r\n\r\n", 400)
    yield _case("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n", 400)


def _methods(face: bytes) -> Iterator[Case]:
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        yield _case(f"{method} /predict", http(method, "/predict"), 405)
    for path in ("/", "/model", "/metrics", "/docs.json"):
        yield _case(f"POST {path}", http("POST", path, face), 405)
    yield _case("an unknown method", http("BREW", "/predict", face), 400, 405, 501)
    for path in (
        *("/nope", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/predict/", "//predict", "/PREDICT", "/predict%00"),
        *("/.env", "/.git/config", "/wp-login.php", "/predict;x=1", "/\u202e".encode().decode("latin-1"), "/%ff"),
    ):
        yield _case(f"POST {path!r}", http("POST", path, face), 400, 404)


def _bodies(face: bytes) -> Iterator[Case]:
    del face
    for name, body in {
        "JSON": b'{"image": "abc"}',
        "an address": b'"http://127.0.0.1:9/face.jpg"',
        "a path": b'{"image": "/etc/passwd"}',
        "broken JSON": b"{",
        "deep JSON": b"[" * 50_000,
        "a pickle": pickle.dumps({"image": 1}),
        "base64": b"/9j/4AAQSkZJRgABAQ==",
        "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "PostScript": b"%!PS-Adobe-3.0\n",
        "PDF": b"%PDF-1.7\n",
        "a zip": b"PK\x03\x04" + bytes(60),
        "zeros": bytes(5000),
    }.items():
        yield _case(f"{name} as JSON", raw(body, "application/json"), 415)
        yield _case(f"{name} as an image", raw(body), 415)
        yield _case(f"{name} in the form", form(part(body)), 415)
    yield _case("an address in the form", form(part(b"http://127.0.0.1:9/x.jpg", filename=None)), 415)
    png = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
    yield _case("a PNG that announces 3.6 gigapixels", raw(png + b"\0\0\0\rIHDR" + header + bytes(4)), 413, 422)


def _batches(face: bytes) -> Iterator[Case]:
    images = part(face, name="images")
    yield _case("a batch with a broken one", form(images, part(b"x", name="images"), path="/predict_batch"), 200)
    yield _case("a batch of 65", form(*[images] * 65, path="/predict_batch"), 400)
    yield _case("a batch of 500", form(*[images] * 500, path="/predict_batch"), 400)
    yield _case("an empty batch", form(path="/predict_batch"), 400)
    yield _case("a raw image as a batch", raw(face, path="/predict_batch"), 415)
    yield _case("a batch of 33 MiB", form(part(bytes(33 * 2**20), name="images"), path="/predict_batch"), 413)


def _feedback(face: bytes) -> Iterator[Case]:
    del face
    bodies: dict[str, tuple[bytes, int]] = {
        "nothing": (b"", 400),
        "no JSON": (b"{", 400),
        "a list": (b"[]", 400),
        "a number": (b"7", 400),
        "deep": (b"[" * 4000, 400),
        "not UTF-8": (b"\xff\xfe{", 400),
        "without an emotion": (b'{"prediction_id": "x"}', 400),
        "numbers": (b'{"prediction_id": 1, "emotion": 2}', 400),
        "an unknown emotion": (json.dumps({"prediction_id": "0" * 40, "emotion": "bored"}).encode(), 422),
        "an unknown prediction": (json.dumps({"prediction_id": "0" * 40, "emotion": "sad"}).encode(), 404),
        "a path": (json.dumps({"prediction_id": "../../x", "emotion": "sad"}).encode(), 404),
        "a long id": (json.dumps({"prediction_id": "0" * 3000, "emotion": "sad"}).encode(), 404),
        "too large": (b" " * 5000, 413),
    }
    for name, (body, status) in bodies.items():
        yield _case(f"feedback: {name}", raw(body, "application/json", "/feedback"), status, *({422} & {status}))
    yield _case("feedback as a form", form(part(b"x"), path="/feedback"), 415)


def _queries(face: bytes) -> Iterator[Case]:
    for query in ("heatmap=1&heatmap=0", "=", "&&&", "heatmap[]=1", "%ff=%fe", "Heatmap=2"):
        yield _case(f"a query {query}", raw(face, path=f"/predict?{query}"), 200)
    for query in ("heatmap=2", "heatmap=%00", "face=junk", "face=", "face=find%0d%0aX:y"):
        yield _case(f"a query {query}", raw(face, path=f"/predict?{query}"), 400)


def send(address: str, request: bytes, seconds: float = 30) -> tuple[int, bytes]:
    """Send raw bytes; return status and body. Status 0: the connection was closed without a response."""
    host = urlsplit(address)
    response = b""
    with socket.create_connection((host.hostname or "", host.port or 80), timeout=seconds) as connection:
        # If the server rejects the request and closes the connection meanwhile, the response may still have arrived.
        with contextlib.suppress(OSError):
            connection.sendall(request)
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65_536):
                response += piece
    head, _, body = response.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0), body
