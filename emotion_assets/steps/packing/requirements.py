"""Resolve the Python packages of the service's image: what the service imports, and what that needs, pinned."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_IMPORTED: Final = (
    "bentoml",
    "numpy",
    "onnxruntime",
    "opentelemetry-exporter-otlp-proto-http",
    "pillow",
    "prometheus-client",
    "psutil",
    "pydantic-settings",
    "python-multipart",
    "simplejpeg",
    "starlette",
    "uvicorn",
)
# uvicorn uses these where they are installed: a faster event loop and parser.
_FASTER: Final = ("httptools", "uvloop")
_REMOTE: Final = ("obstore",)
"""Installed where the data root is in object storage."""


def pinned_packages() -> list[str]:
    """Return `name==version` of every package of the image, as installed here, in alphabetical order."""
    pins: dict[str, str] = {}
    waiting = [Requirement(name) for name in (*_IMPORTED, *_FASTER, *_REMOTE)]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in pins and not requirement.extras:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform, or of an extra that is not used
        pins[name] = found.version
        for line in found.requires or ():
            needed = Requirement(line)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return [f"{name}=={version}" for name, version in sorted(pins.items())]
