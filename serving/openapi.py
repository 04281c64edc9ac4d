"""Describes the service for programs, at /openapi.json: OpenAPI 3.1 with examples and every error.

It replaces BentoML's own document, which has neither the errors nor the endpoints that answer GET.
"""

from __future__ import annotations

from typing import Any

from serving.schemas import EXAMPLE_NAMES, FILE, PARTIAL, PIXELS, json_schemas
from serving.settings import Settings

SMALL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"  # one white pixel
)


def document(settings: Settings, class_names: list[str]) -> dict[str, Any]:
    """The whole document as a dictionary for JSON, with the two classes of the model in its examples."""
    first, second = class_names
    described: dict[str, Any] = _named(_document(settings), dict(zip(EXAMPLE_NAMES, class_names, strict=True)))
    title = f"{first.capitalize()} or {second}?"
    return described | {"info": described["info"] | {"title": title}}


def _named(value: Any, names: dict[str, str]) -> Any:
    """A JSON value in which other names replace the classes of the examples."""
    if isinstance(value, dict):
        return {names.get(key, key): _named(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_named(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _document(settings: Settings) -> dict[str, Any]:
    options, picture = {"partial": PARTIAL, "pixels": PIXELS}, {"schema": {"type": "string", "format": "binary"}}
    predict = _classifying(
        settings, "predict", f"Classify 1 to {settings.max_images} images", "images", "Predictions", options, {}
    )
    explain = _classifying(
        settings, "explain", "Show what the model looked at in one image", "image", "ExplanationAnswer", {},
        {"image/png": picture},
    )  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "version": "1",
            "description": "Classifies images into two classes. Every error is JSON with a sentence in `error` and a "
            "word in `code`. Every answer has the header `X-Request-ID`; the log has it too.",
        },
        "servers": [{"url": "/"}],
        "components": {"schemas": json_schemas(), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}] if settings.token else [],
        "paths": {
            "/predict": {"post": predict},
            "/explain": {"post": explain},
            "/model": {"get": _simple("model", "The model's card", "application/json", _schema("Card"))},
            "/healthz": {"get": _health("healthz", "The process runs")},
            "/livez": {"get": _health("livez", "The process runs")},
            "/readyz": {"get": _health("readyz", "The model is verified and warmed up")},
            "/metrics": {"get": _simple("metrics", "For Prometheus", "text/plain", {"type": "string"})},
        },
    }


def _classifying(
    settings: Settings, name: str, summary: str, field: str, answer: str, options: dict[str, str],
    other_answers: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [
            {"name": option, "in": "query", "schema": {"type": "boolean"}, "description": about}
            for option, about in options.items()
        ],
        "requestBody": _body(field, settings, options),
        "responses": {
            "200": _response("The answer", "application/json", _schema(answer), other_answers),
            "400": _error("The image is missing, or the body is damaged"),
            "401": _error("The token is missing or wrong"),
            "405": _error("The method is not POST"),
            "408": _error("The body arrived too slowly"),
            "413": _error("There are too many bytes, images or pixels"),
            "415": _error("The body is neither multipart/form-data nor application/json"),
            "422": _error("A file is not a readable image; `index` and `filename` name it"),
            "429": _error("The service is busy: try again after the seconds in the header `Retry-After`"),
            "504": _error("The answer took longer than all limits together allow"),
        },
    }


def _body(field: str, settings: Settings, options: dict[str, str]) -> dict[str, Any]:
    several = field == "images"
    file = {"type": "string", "format": "binary", "description": FILE}
    text = {
        "type": "object",
        "required": ["content"],
        "additionalProperties": False,
        "properties": {
            "content": {"type": "string", "contentEncoding": "base64", "description": "the file"},
            "filename": {"type": "string"},
        },
        "example": {"content": SMALL_PNG, "filename": "white.png"},
    }
    limits = {"minItems": 1, "maxItems": settings.max_images}
    flags = {option: {"type": "boolean", "default": False, "description": about} for option, about in options.items()}

    def schema(item: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": [field],
            "properties": {field: {"type": "array", "items": item} | limits if several else item} | flags,
            "additionalProperties": False,
        }

    example = {field: [text["example"]] if several else text["example"]}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": schema(file)},
            "application/json": {"schema": schema(text), "example": example},
        },
    }


def _simple(name: str, summary: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": _response(summary, kind, schema),
            "401": _error("The token is missing or wrong"),
            "405": _error("The method is not GET"),
            "429": _error("The service is busy"),
        },
    }


def _health(name: str, summary: str) -> dict[str, Any]:
    kind = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": summary, "content": kind}, "405": _error("The method is not GET")},
    }


def _response(about: str, kind: str, schema: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": about, "content": {kind: {"schema": schema}} | (others or {})}


def _error(about: str) -> dict[str, Any]:
    return _response(about, "application/json", _schema("Error"))


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
