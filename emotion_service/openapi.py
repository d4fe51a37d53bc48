"""The routes' description, and the OpenAPI document that is generated from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter
from starlette.requests import Request

from emotion_service.schemas import ErrorResponse

ERRORS: Final = {
    400: "The request is malformed, or its body is missing.",
    401: "The token is missing or wrong.",
    403: "The service runs without a token.",
    404: "There is no such prediction, or no stored image of it.",
    409: "The prediction already has a label.",
    413: "The body or the image is too large: over 10 MiB or 40 megapixels (12.5 for WebP), 32 MiB for a batch.",
    415: "The media type, the encoding or the image format is not supported.",
    422: "The image is damaged or too small, or shows no face (`face=find`); or the emotion is unknown.",
    429: "There are too many requests. Try again after the seconds in `Retry-After`.",
    431: "There are more than 200 headers, or more than 32 KiB of them.",
    503: "No model is loaded, or a label cannot be stored.",
    504: "The request took too long.",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route: how it is called, what it returns, who handles it."""

    method: str
    path: str
    summary: str
    response: Any
    """The type of the JSON body, or another media type."""
    handler: Callable[[Request], Awaitable[Any]] | None = None
    """Returns an instance of `response`, or a Starlette response; None if the server around the app handles it."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """For each media type of the request its JSON schema or its type."""
    parameters: tuple[dict[str, Any], ...] = ()
    errors: tuple[int, ...] = ()

    @property
    def is_protected(self) -> bool:
        """Whether it needs the token and is rate limited."""
        return 401 in self.errors


def query(name: str, description: str, choices: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe a parameter of a query: a required one, or one of `choices`, of which the first is the default."""
    schema = {"type": "string"} | ({"enum": list(choices), "default": choices[0]} if choices else {})
    return {"name": name, "in": "query", "description": description, "required": not choices, "schema": schema}


def form(field_name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a form with one field."""
    return {"type": "object", "required": [field_name], "properties": {field_name: schema}}


def openapi_document(endpoints: tuple[Endpoint, ...], version: str, emotions: Sequence[str]) -> dict[str, Any]:
    """Return the document for a service that runs a model."""
    types = [ErrorResponse] + [kind for each in endpoints for kind in (each.response, *each.body.values())]
    named = {str(kind): TypeAdapter(kind) for kind in types if not isinstance(kind, str | dict)}
    schemas, definitions = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in named.items()],
        ref_template="#/components/schemas/{model}",
    )
    for schema in definitions.get("$defs", {}).values():
        if "emotion" in schema.get("properties", {}) and emotions:
            schema["properties"]["emotion"]["enum"] = list(emotions)

    def content(kind: Any) -> dict[str, Any]:
        if isinstance(kind, str):
            return {kind: {}}
        return {"application/json": {"schema": schemas[str(kind), "validation"]}}

    def operation(endpoint: Endpoint) -> dict[str, Any]:
        responses = {"200": {"description": "Success.", "content": content(endpoint.response)}}
        for status in endpoint.errors:
            responses[str(status)] = {
                "description": ERRORS[status],
                "content": content(ErrorResponse) if endpoint.handler else {},
            }
        described: dict[str, Any] = {"summary": endpoint.summary, "responses": responses}
        if endpoint.is_protected:
            described["security"] = [{"token": []}, {}]  # the service may run without one
        if endpoint.parameters:
            described["parameters"] = list(endpoint.parameters)
        if endpoint.body:
            bodies = {
                media: {"schema": kind if isinstance(kind, dict) else schemas[str(kind), "validation"]}
                for media, kind in endpoint.body.items()
            }
            described["requestBody"] = {"required": True, "content": bodies}
        return described

    return {
        "openapi": "3.1.0",
        "info": {"title": "emotion_service", "version": version, "description": "Emotion of a face image."},
        "paths": {each.path: {each.method.lower(): operation(each)} for each in endpoints},
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
