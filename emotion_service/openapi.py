"""The OpenAPI document of every route, from the schemas that the service answers with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from emotion_service.schemas import ErrorResponse, Feedback, FeedbackResponse, LabelRequest, ModelInfo, Prediction
from emotion_service.uploads import BATCH_FIELD_NAME, FIELD_NAME, MAX_BATCH_IMAGES

_REJECTIONS = {
    "400": "No image, an empty one, or a malformed form.",
    "401": "The service needs a bearer token.",
    "413": "Over 10 MiB or over 40 megapixels (12 for WebP, which takes more memory to decode).",
    "415": "Not JPEG, PNG, WebP, GIF, BMP or TIFF by content; or a body of another kind.",
    "422": "The image is damaged, incomplete or too small; or `face=find` found no face.",
    "429": "Too many requests; try again after the seconds in `Retry-After`.",
    "431": "Over 200 header fields, or over 32 KiB of them.",
    "503": "No model is ready.",
    "504": "The answer took too long.",
}


_WISHES = [
    {
        "name": "heatmap",
        "in": "query",
        "description": "1 adds what the network looked at.",
        "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
    },
    {
        "name": "face",
        "in": "query",
        "description": "whole: the image is a face. find: look for the largest face first, and cut it out.",
        "schema": {"type": "string", "enum": ["whole", "find"], "default": "whole"},
    },
]
_ITEMS = [{"$ref": f"#/components/schemas/{name}"} for name in ("Prediction", "ErrorResponse")]
_MODELS = (Prediction, ErrorResponse, ModelInfo, Feedback, FeedbackResponse, LabelRequest)


def openapi_document(version: str) -> dict[str, Any]:
    """Return the document for the service as it runs with model `version`."""
    schemas = {model.__name__: _schema(model) for model in _MODELS}
    for schema in list(schemas.values()):
        schemas |= schema.pop("$defs", {})
    rejections = {status: _answer(text, "ErrorResponse") for status, text in _REJECTIONS.items()}
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "schema": {
            "type": "object",
            "required": [FIELD_NAME],
            "properties": {FIELD_NAME: {"type": "string", "format": "binary"}},
        }
    }
    predict = {
        "summary": "Name the emotion of one face",
        "parameters": _WISHES,
        "requestBody": {"required": True, "content": {"multipart/form-data": form, "image/*": binary}},
        "responses": {"200": _answer("The prediction.", "Prediction"), **rejections},
    }
    batch = {
        "summary": f"Name the emotions of up to {MAX_BATCH_IMAGES} faces",
        "parameters": _WISHES,
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": [BATCH_FIELD_NAME],
                        "properties": {
                            BATCH_FIELD_NAME: {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": MAX_BATCH_IMAGES,
                                "items": {"type": "string", "format": "binary"},
                            }
                        },
                    }
                }
            },
        },
        "responses": {
            "200": {
                "description": "For each image in order its prediction, or why it was rejected.",
                "content": {"application/json": {"schema": {"type": "array", "items": {"anyOf": _ITEMS}}}},
            },
            **{status: answer for status, answer in rejections.items() if status != "422"},
        },
    }
    feedback = {
        "summary": "Say what the face of a prediction really shows; once for each",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Feedback"}}},
        },
        "responses": {
            "200": _answer("The label was accepted.", "FeedbackResponse"),
            "400": _answer("The body is no such JSON.", "ErrorResponse"),
            "404": _answer("There is no such prediction.", "ErrorResponse"),
            "409": _answer("The prediction has a label already.", "ErrorResponse"),
            "413": _answer("The body is over 4 KiB.", "ErrorResponse"),
            "415": _answer("The body is not JSON by its type.", "ErrorResponse"),
            "422": _answer("The emotion is none that the model knows.", "ErrorResponse"),
            **{status: rejections[status] for status in ("401", "429", "431", "503", "504")},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "emotion_service", "version": version, "description": "Emotion of a face image."},
        "paths": {
            "/predict": {"post": predict},
            "/predict_batch": {"post": batch},
            "/feedback": {"post": feedback},
            "/model": {
                "get": {
                    "summary": "Facts of the model that answers",
                    "responses": {"200": _answer("The facts.", "ModelInfo"), "503": rejections["503"]},
                }
            },
            "/": {"get": _plain("The page", "text/html")},
            "/label": {"get": _plain("The page of the queue", "text/html")},
            "/label_requests": {
                "get": {
                    "summary": "Predictions whose labels would tell most; only with a token",
                    "responses": {
                        "200": {
                            "description": "Those that have no label yet.",
                            "content": {
                                "application/json": {
                                    "schema": {
                                        "type": "array",
                                        "items": {"$ref": "#/components/schemas/LabelRequest"},
                                    }
                                }
                            },
                        },
                        "403": _answer("The service runs without a token.", "ErrorResponse"),
                        **{status: rejections[status] for status in ("401", "429", "431")},
                    },
                }
            },
            "/label_image": {
                "get": {
                    "summary": "The kept image of a prediction; only with a token",
                    "parameters": [
                        {"name": "prediction_id", "in": "query", "required": True, "schema": {"type": "string"}}
                    ],
                    "responses": {
                        "200": {"description": "The image.", "content": {"image/*": {}}},
                        "403": _answer("The service runs without a token.", "ErrorResponse"),
                        "404": _answer("No image of it is kept.", "ErrorResponse"),
                        **{status: rejections[status] for status in ("401", "429", "431")},
                    },
                }
            },
            "/livez": {"get": _plain("Is the process alive?", "text/plain")},
            "/readyz": {
                "get": {
                    **_plain("Is a model ready?", "text/plain"),
                    "responses": {"200": {"description": "Ready."}, "503": {"description": "No model is ready."}},
                }
            },
            "/metrics": {
                "get": {
                    **_plain("Prometheus metrics", "text/plain"),
                    "responses": {
                        "200": {"description": "OK", "content": {"text/plain": {}}},
                        "503": rejections["503"],
                    },
                }
            },
            "/docs.json": {"get": _plain("This document", "application/json")},
        },
        "components": {"schemas": schemas},
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template="#/components/schemas/{model}")


def _answer(text: str, schema: str) -> dict[str, Any]:
    reference = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"description": text, "content": {"application/json": reference}}


def _plain(summary: str, media_type: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": {media_type: {}}}}}
