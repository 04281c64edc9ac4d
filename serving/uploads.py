"""Turns the body of a request into files. It is a multipart form or JSON with base64; no address is ever fetched."""

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
"""How many fields of a form may be something other than a file."""

MARKS_PER_IMAGE = 32
"""Braces, brackets, quotes and commas that a JSON body may have for each image; an entry with a filename has ten."""

TRUE, FALSE = ("true", "1"), ("false", "0", "")


@dataclass(frozen=True)
class File:
    """A file as the client sent it."""

    filename: str | None
    content: bytes


@dataclass(frozen=True)
class Upload:
    """The files and the options of a request."""

    files: list[File]
    options: dict[str, bool]


async def read_upload(request: Request, field: str, max_files: int, option_names: tuple[str, ...] = ()) -> Upload:
    """Read the whole request.

    Args:
        request: its body may still be unread.
        field: the form's field, or the key in JSON, that holds the files.
        max_files: how many files the request may have.
        option_names: flags that may be in the query, the form or the JSON.

    Raises:
        Refusal: the body is neither a form nor JSON, or is damaged; it has no file, too many files or unknown fields.
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
        raise Refusal(400, "no_image", f"The field {field!r} has no file.")
    unknown = [name for name in options if name not in option_names]
    if unknown:
        raise Refusal(400, "unknown_field", f"The field {clean(unknown[0])!r} is unknown; send images in {field!r}.")
    options |= {name: request.query_params[name] for name in option_names if name in request.query_params}
    return Upload(files, {name: _flag(name, options.get(name, False)) for name in option_names})


async def _read_form(
    request: Request, boundary: bytes, field: str, max_files: int
) -> tuple[list[File], dict[str, Any]]:
    body = await request.body()
    # Where the data ends too early, the parser drops the last part without an error: nobody would miss that image.
    end = b"--" + boundary + b"--"
    if not boundary or not (body.startswith(end) or b"\r\n" + end in body[-len(boundary) - 64 :]):
        raise Refusal(400, "bad_form", "The form is cut off, or its boundary differs from the one in its header.")
    try:
        form = await request.form(max_files=max_files, max_fields=MAX_OPTIONS, max_part_size=1024)
    except Exception as error:  # the parser's, Starlette's, or any other that a strange header causes
        reason = str(getattr(error, "detail", error))
        if "Too many files" in reason:
            raise _too_many(max_files) from None
        raise Refusal(400, "bad_form", f"The form cannot be read: {clean(reason)}") from None
    files, options = [], {}
    for name, value in form.multi_items():
        if name == field:
            if not isinstance(value, UploadFile):
                raise Refusal(
                    400,
                    "no_file",
                    f"The field {field!r} holds text. Send the file itself; the service fetches no address.",
                )
            files.append(File(clean(value.filename), await value.read()))
        elif isinstance(value, UploadFile):
            raise Refusal(400, "unknown_field", f"The field {clean(name)!r} has a file; send images in {field!r}.")
        else:
            options[name] = value
    return files, options


def _read_json(body: bytes, field: str, max_files: int) -> tuple[list[File], dict[str, Any]]:
    # Checked before parsing: 16 MB of small values become a gigabyte of objects. Base64 has none of these characters.
    if sum(body.count(mark) for mark in (b"{", b"[", b'"', b",")) > MARKS_PER_IMAGE * (max_files + 1):
        raise _too_many(max_files)
    try:
        document = json.loads(body)
    except ValueError:
        raise Refusal(400, "bad_json", "The body is not JSON.") from None
    if not isinstance(document, dict) or field not in document:
        raise Refusal(400, "bad_json", f'The body must be like {{"{field}": [{{"content": "<base64>"}}]}}.')
    entries = document.pop(field)
    entries = entries if isinstance(entries, list) else [entries]
    return [_from_base64(entry, index) for index, entry in enumerate(entries)], document


def _from_base64(entry: Any, index: int) -> File:
    fields = entry if isinstance(entry, dict) else {"content": entry}
    name, text = fields.get("filename"), fields.get("content")
    filename = clean(name) if isinstance(name, str) else None
    if isinstance(text, str):
        with suppress(ValueError):
            return File(filename, base64.b64decode(text, validate=True))
    raise Refusal(
        400, "bad_base64", "The content is not base64. The service fetches no address.", index=index, filename=filename
    )


def clean(text: str | None) -> str | None:
    """A text from the client, made safe to show: at most 200 characters, all of them printable."""
    return text if text is None else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:200])


def _flag(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in TRUE + FALSE:
        raise Refusal(400, "bad_option", f"{name} must be true or false.")
    return text in TRUE


def _too_many(max_files: int) -> Refusal:
    return Refusal(413, "too_many_images", f"A request may have {max_files} image{'s' * (max_files > 1)} at most.")
