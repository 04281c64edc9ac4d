"""Hostile and odd requests as bytes, each named for what it tries."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

BOUNDARY = b"edge"
FORM = b"multipart/form-data; boundary=edge"


def http(
    body: bytes, content_type: bytes = FORM, path: bytes = b"/predict", method: bytes = b"POST",
    headers: tuple[bytes, ...] = (), length: int | None = None,
) -> bytes:  # fmt: skip
    head = [method + b" " + path + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close"]
    head += [b"Content-Type: " + content_type] if content_type else []
    head += [b"Content-Length: %d" % (len(body) if length is None else length), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def part(content: bytes, filename: bytes = b"a.png", name: bytes = b"images", kind: bytes = b"image/png") -> bytes:
    disposition = b'Content-Disposition: form-data; name="' + name + b'"; filename="' + filename + b'"'
    return b"--edge\r\n" + disposition + b"\r\nContent-Type: " + kind + b"\r\n\r\n" + content + b"\r\n"


def form(*contents: bytes, **how: bytes) -> bytes:
    return b"".join(part(content, **how) for content in contents) + b"--edge--\r\n"


def sent(content: bytes, **how: bytes) -> bytes:
    return http(form(content, **how))


def saved(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", right if checksum is None else checksum)


def png(width: int, height: int, bits: int = 8, colour: int = 2, content: bytes = b"", *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def photo(side: int = 64, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def corpus() -> dict[str, bytes]:
    """Name -> request."""
    good = saved(photo(), "PNG")
    jpeg, gif, webp = saved(photo(), "JPEG"), saved(photo(), "GIF"), saved(photo(), "WEBP")
    text = b"just some text"
    json_type = b"application/json"
    document = {"images": [base64.b64encode(good).decode()]}
    requests = {
        # Files that are not images, or hardly
        "zero bytes": sent(b""),
        "one byte": sent(b"\x89"),
        "text": sent(text),
        "text called PNG": sent(text, filename=b"photo.png"),
        "html with a script": sent(b"<html><script>alert(1)</script></html>", kind=b"text/html"),
        "svg": sent(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:1/x"/></svg>'),
        "pdf": sent(b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj"),
        "postscript that would run": sent(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file"),
        "tiff, which is not served": sent(saved(photo(), "TIFF")),
        "ico, which is not served": sent(saved(photo(), "ICO")),
        "pickle": sent(b"cos\nsystem\n(S'true'\ntR."),
        "zip with a PNG's first bytes": sent(good[:8] + b"PK\x03\x04" + bytes(500)),
        "gif and javascript in one": sent(b"GIF89a/*" + gif[8:] + b"*/=1;alert(1)"),
        "png with a zip behind it": sent(good + b"PK\x03\x04" + bytes(1000)),
        "only a PNG's signature": sent(b"\x89PNG\r\n\x1a\n"),
        "png with a wrong checksum": sent(good[:29] + b"\0\0\0\0" + good[33:]),
        "png without pixels": sent(png(64, 64)),
        "png with too few pixels": sent(png(64, 64, 8, 2, bytes(100))),
        "png whose pixels are not zlib": sent(png(8, 8).replace(zlib.compress(b""), b"not zlib")),
        "png without width": sent(png(0, 64)),
        "png of negative size": sent(png(0xFFFFFFFF, 0xFFFFFFFF)),
        "png with an unknown colour type": sent(png(8, 8, 8, 9, bytes(300))),
        "png of 3 bits": sent(png(8, 8, 3, 2, bytes(300))),
        "jpeg cut in half": sent(jpeg[: len(jpeg) // 2]),
        "jpeg with noise in the middle": sent(jpeg[:300] + bytes(range(256)) + jpeg[556:]),
        "gif cut in half": sent(gif[: len(gif) // 2]),
        "webp cut in half": sent(webp[: len(webp) // 2]),
        "webp with a lying length": sent(webp[:4] + b"\xff\xff\xff\x7f" + webp[8:]),
        "bmp with a huge offset": sent(
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 2**31, 40, 9, 9, 1, 24, *[0] * 6)
        ),
        # Bombs
        "bomb: 20000x20000 declared": sent(png(20000, 20000, 1, 0, bytes(100))),
        "bomb: 65535x65535 declared": sent(png(65535, 65535, 16, 6, bytes(100))),
        "odd: 25 megapixels of nothing in 4 kB": sent(png(4999, 5000, 1, 0, bytes(5000 * 626))),
        "bomb: text chunk of 50 MB": sent(
            png(8, 8, 8, 2, bytes(200), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000), 9)))
        ),
        "bomb: colour profile of 50 MB": sent(
            png(8, 8, 8, 2, bytes(200), chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(50_000_000), 9)))
        ),
        "bomb: jpeg of 2,000 scans": sent(many_scans(2000)),
        "bomb: jpeg with exif data of 15 MB": sent(with_exif_numbers("JPEG", 15)),
        "odd: png with exif data of 15 MB": sent(with_exif_numbers("PNG", 15)),
        "bomb: jpeg of 10,000 segments": sent(jpeg[:2] + b"\xff\xe1\x00\x08Exif\0\0" * 10_000 + jpeg[2:]),
        "bomb: gif of 65535x65535": sent(b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + gif[13:]),
        "bomb: 64 images of 25 megapixels": http(form(*[png(5000, 5000, 1, 0, bytes(5000 * 626))] * 64)),
        # Odd images that are valid
        "odd: 1x100000": sent(saved(Image.new("RGB", (1, 100000)), "PNG")),
        "odd: 100000x1": sent(saved(Image.new("L", (100000, 1)), "PNG")),
        "odd: 1x1": sent(saved(Image.new("RGB", (1, 1)), "PNG")),
        "odd: animated gif": sent(saved(photo(), "GIF", save_all=True, append_images=[photo(64, "L")] * 50)),
        "odd: animated webp": sent(saved(photo(), "WEBP", save_all=True, append_images=[photo(64)] * 20)),
        "odd: cmyk jpeg": sent(saved(photo(64, "CMYK"), "JPEG")),
        "odd: 16-bit gray png": sent(saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG")),
        "odd: 1-bit png": sent(saved(photo(64, "1"), "PNG")),
        "odd: palette with transparency": sent(saved(photo(64, "P"), "PNG", transparency=0)),
        "odd: exif of nonsense": sent(saved(photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 60)),
        "odd: NaN in the metadata": sent(saved(photo(), "PNG", pnginfo=_nan_text())),
        # Names
        "name: path traversal": sent(good, filename=b"../../../../etc/passwd"),
        "name: absolute": sent(good, filename=b"/etc/cron.d/evil.png"),
        "name: windows": sent(good, filename=rb"C:\\Windows\\system32\\evil.png"),
        "name: unicode and right-to-left": sent(good, filename="\u202egnp.\U0001f69a\u0000\u2028".encode()),
        "name: not UTF-8": sent(good, filename=b"\xff\xfe\xfd.png"),
        "long name: 100,000 letters": sent(good, filename=b"a" * 100_000),
        "name: of a header": sent(good, filename=b"a%0d%0aX-Evil: yes.png"),
        "name: html": sent(good, filename=b"<img src=x onerror=alert(1)>.png"),
        "name: empty": sent(good, filename=b""),
        # Forms
        "form: no boundary": http(form(good), b"multipart/form-data"),
        "form: another boundary": http(form(good), b"multipart/form-data; boundary=other"),
        "form: boundary of 5,000 letters": http(form(good), b"multipart/form-data; boundary=" + b"x" * 5000),
        "form: cut after the header of a part": http(form(good)[:80]),
        "form: cut within the file": http(form(good)[: len(good) // 2]),
        "form: no end": http(form(good)[:-8]),
        "form: last part without a line break": http(part(good)[:-2] + b"--edge--\r\n"),
        "form: empty": http(b"--edge--\r\n"),
        "form: nothing at all": http(b""),
        "form: part without a name": http(_field(b'filename="a"', b"x") + b"--edge--\r\n"),
        "form: part without headers": http(b"--edge\r\n\r\nx\r\n--edge--\r\n"),
        "form: wrong field": sent(good, name=b"file"),
        "form: text in the field": http(_field(b'name="images"', b"x") + b"--edge--\r\n"),
        "form: address in the field": http(_field(b'name="images"', b"http://127.0.0.1:1/a.png") + b"--edge--\r\n"),
        "form: address of the cloud's metadata": http(
            _field(b'name="images"', b"http://169.254.169.254/") + b"--edge--\r\n"
        ),
        "form: 65 files": http(form(*[good] * 65)),
        "form: 10,000 parts": http(form(*[b"x"] * 10_000)),
        "form: 10,000 fields": http(
            _field(b'name="f"', b"x") * 10_000 + b"--edge--\r\n"
        ),
        "form: duplicate options": http(
            _field(b'name="partial"', b"maybe") * 2 + form(good)
        ),
        "form: a part's header of 1 MB": http(part(good, kind=b"x" * 1_000_000) + b"--edge--\r\n"),
        "form: unknown charset": http(form(good), FORM + b"; charset=nonsense"),
        "form: charset that decodes by code": http(form(good), FORM + b"; charset=unicode_escape"),
        "form: urlencoded": http(b"images=http%3A%2F%2F127.0.0.1", b"application/x-www-form-urlencoded"),
        # JSON
        "json in place of a form": http(json.dumps(document).encode()),
        "form in place of json": http(form(good), json_type),
        "json: broken": http(b'{"images": [', json_type),
        "json: a number": http(b"7", json_type),
        "json: null": http(b"null", json_type),
        "json: an empty list": http(b'{"images": []}', json_type),
        "json: nested 100,000 deep": http(b"[" * 100_000, json_type),
        "json: a million objects": http(b'{"images": [' + b"{}," * 999_999 + b"{}]}", json_type),
        "json: a million numbers": http(b'{"images": [' + b"1," * 999_999 + b"1]}", json_type),
        "json: content that is a list": http(b'{"images": [{"content": []}]}', json_type),
        "json: a number of 100,000 digits": http(b'{"images": ' + b"9" * 100_000 + b"}", json_type),
        "json: an address": http(b'{"images": ["http://127.0.0.1:1/a.png"]}', json_type),
        "json: a file of the server": http(b'{"images": ["file:///etc/passwd"]}', json_type),
        "json: base64 of text": http(b'{"images": ["aGVsbG8="]}', json_type),
        "json: not base64": http(b'{"images": ["***"]}', json_type),
        "json: objects in objects": http(b'{"images": [{"content": {"content": 1}}]}', json_type),
        "json: a key too many": http(json.dumps(document | {"evil": 1}).encode(), json_type),
        "json: NaN": http(b'{"images": [NaN]}', json_type),
        "json: not UTF-8": http(b'{"images": ["\xff"]}', json_type),
        "json: half a surrogate": http(b'{"images": [{"content": "", "filename": "\\ud800"}]}', json_type),
        # HTTP
        "type: none": http(form(good), b""),
        "type: image/png": http(good, b"image/png"),
        "type: BentoML's pickle": http(b"cos\nsystem\n(S'true'\ntR.", b"application/vnd.bentoml+pickle"),
        "type: nonsense": http(form(good), b";;;===,,,\xff"),
        "length: less than is sent": http(form(good), length=40),
        "length: negative": http(form(good), length=-1),
        "length: of 20 digits": http(b"", length=10**20),
        "length: 100 MB declared": http(b"x", length=100_000_000),
        "length: twice": http(form(good), headers=(b"Content-Length: 5",)),
        "length and chunks": http(form(good), headers=(b"Transfer-Encoding: chunked",)),
        "chunks of nonsense": _chunked(b"zz\r\nhello\r\n"),
        "header of 1 MB": http(form(good), headers=(b"X-Big: " + b"a" * 1_000_000,)),
        "10,000 headers": http(form(good), headers=(b"X-Many: 1",) * 10_000),
        "request id with a line break": http(form(good), headers=(b"X-Request-ID: a%0aINFO forged",)),
        "method of nonsense": http(b"", method=b"BREW"),
        "method of a word": http(b"", method=b"PASSWORDevil"),
        "header with baggage": http(form(b"x"), headers=(b"baggage: evil=forged;;;=", b"traceparent: evil")),
        "method TRACE": http(b"", method=b"TRACE"),
        "path traversal": http(b"", path=b"/ui/../../../../etc/passwd", method=b"GET"),
        "path traversal, encoded": http(b"", path=b"/ui/%2e%2e/%2e%2e/service.py", method=b"GET"),
        "path with a zero byte": http(b"", path=b"/ui/%00", method=b"GET"),
        "path of 60,000 letters": http(b"", path=b"/" + b"a" * 60_000, method=b"GET"),
        "sample by traversal": http(b"", path=b"/ui/samples/..%2fmodel.onnx", method=b"GET"),
        "sample of a name too long": http(b"", path=b"/ui/samples/" + b"a" * 5000, method=b"GET"),
        "query of nonsense": http(form(good), path=b"/predict?partial=maybe&partial[]=%ff"),
        "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "two images to explain": http(form(good, good, name=b"image"), path=b"/explain"),
        "bomb to explain": http(form(png(20000, 20000, 1, 0, bytes(100)), name=b"image"), path=b"/explain"),
    }  # fmt: skip
    for place in _chunk_ends(good):
        requests[f"png cut at byte {place}"] = sent(good[:place])
    return requests


def _field(name: bytes, text: bytes) -> bytes:
    return b"--edge\r\nContent-Disposition: form-data; " + name + b"\r\n\r\n" + text + b"\r\n"


def many_scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG file that repeats its last scan `count` times; each one is decoded over the whole image."""
    jpeg = saved(photo(side, "L"), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def with_exif_numbers(format: str, megabytes: float) -> bytes:
    """An image whose EXIF data is a long list of numbers: they are its resolution (JPEG) or its orientation (PNG)."""
    count, tag = int(megabytes * 1e6) // 8, 0x11A if format == "JPEG" else 0x112
    entries = [struct.pack("<HHII", tag, 5, count, 38), struct.pack("<HHII", 0x128, 3, 1, 2)]
    exif = b"II*\0\x08\0\0\0\2\0" + b"".join(sorted(entries)) + bytes(4) + b"\1\0\0\0\2\0\0\0" * count
    if format == "PNG":
        return png(8, 8, 8, 2, bytes(200), chunk(b"eXIf", exif))
    parts = [b"Exif\0\0" + exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
    jpeg = saved(photo(), "JPEG")
    return jpeg[:2] + segments + jpeg[20:]  # without the JFIF segment, which has a resolution too


def _nan_text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("gamma", "NaN")
    text.add(b"gAMA", b"\xff\xff\xff\xff")
    text.add(b"pHYs", b"\0" * 9)
    return text


def _chunked(body: bytes) -> bytes:
    return (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: " + FORM + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    )


def _chunk_ends(file: bytes) -> list[int]:
    places, at = [], 8
    while at < len(file):
        at += 12 + struct.unpack(">I", file[at : at + 4])[0]
        places.append(at)
    return [8, 16, *places[:-2]]  # without its last chunk, which is empty, the image is whole
