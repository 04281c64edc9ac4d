"""The one place where a file of any size becomes the 32x32 pixels that the model takes.

The square in the middle of the image is scaled to 32x32 by averaging areas. Transparent parts get a white background,
and the EXIF orientation makes the image upright. An opaque 32x32 image stays as it is. A GIF or WebP that moves counts
as its first frame.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

SIDE = 32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""The formats that are read. The first bytes of a file decide, not its name."""

MAX_SCANS, MAX_SEGMENTS = 64, 1000
"""Limits of a JPEG file; photos have about ten scans and segments. Each scan decodes all pixels once more, so a file of
100 kB that repeats one scan would take minutes."""

MAX_EXIF_BYTES = 500_000
"""Cameras write at most 64 kB of EXIF data. Pillow makes Python objects of its numbers: 15 MB of them take 500 MB."""

LARGE_PIXELS = 2_000_000
LARGE_ONE_BY_ONE = threading.Lock()
"""An image of 25 megapixels takes 200 MB while it is decoded. So images above LARGE_PIXELS wait for each other."""

DRAFT = (256, 256)
"""A large JPEG is decoded at a half, a quarter or an eighth of its size, but not smaller than this. That is far less
work, and still leaves eight pixels for each one along a side to average."""

SEGMENT = re.compile(rb"\xff[\xe0-\xef\xfe]")
"""The start of a JPEG segment with metadata (APPn) or a comment."""


class BadImage(ValueError):
    """The file cannot be read as an image; `code` names the reason, and the message ends a sentence about the file."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ReadImage:
    """An image as the model gets it.

    Attributes:
        pixels: uint8 `[32, 32, 3]`, RGB.
        width, height: of the image in the file, in pixels, before the orientation is applied.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


def read_image(content: bytes, max_pixels: float = 25e6) -> ReadImage:
    """Decode a file.

    Args:
        content: the whole file.
        max_pixels: largest allowed width times height, compared with the header before anything is decoded.

    Raises:
        BadImage: the file is empty, of an unknown format, damaged, or too large.
    """
    if not content:
        raise BadImage("empty_file", "is empty")
    _check_markers(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large and about strange files; both are checked here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise BadImage(
                        "image_too_large",
                        f"has {width}×{height} pixels; at most {max_pixels / 1e6:g} megapixels are read",
                    )
                with LARGE_ONE_BY_ONE if width * height > LARGE_PIXELS else nullcontext():
                    return ReadImage(to_model_pixels(image), width, height)
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage("image_too_large", f"has more than {max_pixels / 1e6:g} megapixels") from None
    except UnidentifiedImageError:
        raise BadImage("unknown_format", f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise BadImage("damaged_image", "is damaged: it cannot be decoded") from error


def _check_markers(content: bytes) -> None:
    """Refuse a JPEG file that would take very long or very much memory.

    Compressed pixels contain no markers (ITU-T T.81, B.1.1.5), so the markers can be counted in the whole file.
    """
    if content.startswith(b"\xff\xd8"):
        scans, segments = content.count(b"\xff\xda"), sum(1 for _ in SEGMENT.finditer(content))
        exif_segments = content.count(b"Exif\0\0")  # each has at most 65,533 bytes
        if scans > MAX_SCANS or segments > MAX_SEGMENTS or exif_segments * 65_533 > MAX_EXIF_BYTES:
            parts = f"{scans} scans and {segments} segments, {exif_segments} of them EXIF"
            raise BadImage("damaged_image", f"has {parts}: a JPEG image does not have so many")


def to_model_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """An opened image as uint8 `[32, 32, 3]`, RGB."""
    image.draft("RGB", DRAFT)
    plain = _plain(image)
    if plain.size != (SIDE, SIDE):
        side = min(plain.size)
        left, top = (plain.width - side) / 2, (plain.height - side) / 2
        plain = plain.resize((SIDE, SIDE), Image.Resampling.BOX, box=(left, top, left + side, top + side))
    if plain.mode == "RGBA":
        plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain)
    # Turned last, when it is small: the square in the middle is the same for every orientation. The library gets the
    # orientation alone, because it would write all other metadata anew: 15 MB of EXIF data cost 760 MB and 17 seconds.
    orientation = _orientation(image)
    plain.info = {}
    plain.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(plain).convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1 to 8 in a sound file; 1, upright, where it cannot be read."""
    image.load()  # PNG may have its EXIF data after the pixels
    try:
        if len(image.info.get("exif") or image.info.get("Raw profile type exif", "")) > MAX_EXIF_BYTES:
            return 1
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata is not a reason to refuse good pixels
        return 1


def _plain(image: Image.Image) -> Image.Image:
    """The image in a mode whose pixels can be averaged: L, RGB or RGBA."""
    if image.mode.startswith("I"):  # 16 bits of gray: keep the upper eight
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode == "L" else image.convert("RGB")
