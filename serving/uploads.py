"""The body of a request becomes files: a multipart form, or JSON with base64. Nothing is ever fetched."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.requests import Request

from serving.refusals import Refusal

MAX_OPTIONS = 8
"""Fields of a form that are no files."""

MARKS_PER_IMAGE = 32
"""Braces, brackets, quotes and commas that a JSON body may have for each image; an entry with a filename has ten."""

TRUE, FALSE = ("true", "1"), ("false", "0", "")


@dataclass(frozen=True)
class File:
    """A file as it was sent."""

    filename: str | None
    content: bytes


@dataclass(frozen=True)
class Upload:
    """What a request carries: files under the name that the endpoint asks for, and options."""

    files: list[File]
    options: dict[str, bool]


async def read_upload(request: Request, field: str, max_files: int, option_names: tuple[str, ...] = ()) -> Upload:
    """Read the whole request.

    Args:
        field: the form's field, or the key in JSON, that holds the files.
        max_files: as many are read.
        option_names: flags that may be in the query, the form or the JSON.

    Raises:
        Refusal: it is neither form nor JSON, is damaged, or holds no file, too many, or what was not asked for.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    try:
        if kind == b"multipart/form-data":
            files, options = await _read_form(request, parameters.get(b"boundary", b""), field, max_files)
        elif kind == b"application/json":
            files, options = _read_json(await request.body(), field, max_files)
        else:
            raise Refusal(
                415,
                "unsupported_content_type",
                f"Send multipart/form-data with files in {field!r}, or application/json.",
            )
    except RecursionError:
        raise Refusal(400, "bad_json", "The body is nested too deeply.") from None
    if len(files) > max_files:
        raise _too_many(max_files)
    if not files:
        raise Refusal(400, "no_image", f"There is no file in the field {field!r}.")
    unknown = [name for name in options if name not in option_names]
    if unknown:
        raise Refusal(400, "unknown_field", f"There is a field {clean(unknown[0])!r}; images go into {field!r}.")
    options |= {name: request.query_params[name] for name in option_names if name in request.query_params}
    return Upload(files, {name: _flag(name, options.get(name, False)) for name in option_names})


async def _read_form(
    request: Request, boundary: bytes, field: str, max_files: int
) -> tuple[list[File], dict[str, Any]]:
    body = await request.body()
    # A parser that meets the end of the data too early forgets the last part: nobody would miss the image.
    end = b"--" + boundary + b"--"
    if not boundary or not (body.startswith(end) or b"\r\n" + end in body[-len(boundary) - 64 :]):
        raise Refusal(400, "bad_form", "The form is cut off, or its boundary is not the one that its header names.")
    try:
        form = await request.form(max_files=max_files, max_fields=MAX_OPTIONS, max_part_size=1024)
    except Exception as error:  # of its own kind, or of Starlette's, or what nonsense in a header provokes
        told = str(getattr(error, "detail", error))
        if "Too many files" in told:
            raise _too_many(max_files) from None
        raise Refusal(400, "bad_form", f"The form cannot be read: {clean(told)}") from None
    files, options = [], {}
    for name, value in form.multi_items():
        if name == field:
            if not isinstance(value, UploadFile):
                raise Refusal(
                    400,
                    "no_file",
                    f"The field {field!r} holds text. Send the file itself: an address is never fetched.",
                )
            files.append(File(clean(value.filename), await value.read()))
        elif isinstance(value, UploadFile):
            raise Refusal(400, "unknown_field", f"There is a file in {clean(name)!r}; images go into {field!r}.")
        else:
            options[name] = value
    return files, options


def _read_json(body: bytes, field: str, max_files: int) -> tuple[list[File], dict[str, Any]]:
    # Before it is parsed: 16 MB of small values become a gigabyte of objects. Base64 has none of these characters.
    if sum(body.count(mark) for mark in (b"{", b"[", b'"', b",")) > MARKS_PER_IMAGE * (max_files + 1):
        raise _too_many(max_files)
    try:
        document = json.loads(body)
    except ValueError:
        raise Refusal(400, "bad_json", "The body is no JSON.") from None
    if not isinstance(document, dict) or field not in document:
        raise Refusal(400, "bad_json", f'The body must be like {{"{field}": [{{"content": "<base64>"}}]}}.')
    entries = document.pop(field)
    entries = entries if isinstance(entries, list) else [entries]
    return [_from_base64(entry, index) for index, entry in enumerate(entries)], document


def _from_base64(entry: Any, index: int) -> File:
    given = entry if isinstance(entry, dict) else {"content": entry}
    name, text = given.get("filename"), given.get("content")
    filename = clean(name) if isinstance(name, str) else None
    if isinstance(text, str):
        with suppress(ValueError):
            return File(filename, base64.b64decode(text, validate=True))
    raise Refusal(
        400, "bad_base64", "The content is no base64. An address is never fetched.", index=index, filename=filename
    )


def clean(text: str | None) -> str | None:
    """A text of the client's as it may be shown again: at most 200 characters, each printable."""
    return text if text is None else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:200])


def _flag(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in TRUE + FALSE:
        raise Refusal(400, "bad_option", f"{name} must be true or false.")
    return text in TRUE


def _too_many(max_files: int) -> Refusal:
    return Refusal(413, "too_many_images", f"At most {max_files} image{'s' * (max_files > 1)} can be sent at a time.")
