"""The one place where a file of any size becomes the 32x32 pixels that the model knows.

The square in the middle of the image is brought to 32x32 by averaging areas, laid over white where it is transparent,
and turned as its EXIF orientation says. An opaque 32x32 image passes untouched. Of a GIF or WebP that moves, the first
frame counts.
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
from PIL import ExifTags, Image, UnidentifiedImageError

SIDE = 32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""What is read, whatever the client calls it; told by the first bytes of the file."""

MAX_SCANS, MAX_SEGMENTS = 64, 1000
"""Of a JPEG file. A true one has some ten scans and segments; each scan decodes all its pixels once more, and of 100 kB
that repeat one scan the decoder makes minutes."""

LARGE_PIXELS = 2_000_000
LARGE_ONE_BY_ONE = threading.Lock()
"""An image of 25 megapixels takes 200 MB while it is decoded: those of more pixels than this wait for
each other."""

DRAFT = (256, 256)
"""A large JPEG is decoded at a half, quarter or eighth of its size that is still at least this large: far less work,
and eight times the pixels that are needed remain to be averaged."""

SEGMENT = re.compile(rb"\xff[\xe0-\xef\xfe]")
"""A marker of JPEG's that starts metadata (APPn) or a comment."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""From the EXIF tag Orientation (CIPA DC-008, 4.6.5.1) to what makes the image upright."""


class BadImage(ValueError):
    """The file is no image that is served; `code` names the reason, the message says it as the end of a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ReadImage:
    """An image as the model gets it.

    Attributes:
        pixels: uint8 `[32, 32, 3]`, RGB.
        width, height: of the file, in pixels, before it is turned.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


def read_image(content: bytes, max_pixels: float = 25e6) -> ReadImage:
    """Decode a file.

    Args:
        content: the whole file.
        max_pixels: width times height of the image, looked up in its header before anything is decoded.

    Raises:
        BadImage: it is empty, of no known format, damaged, or too large.
    """
    if not content:
        raise BadImage("empty_file", "is empty")
    _check_markers(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow warns of large and of oddly written files: both are looked at below
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
        raise BadImage("unknown_format", f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise BadImage("damaged_image", "is damaged: it cannot be decoded") from error


def _check_markers(content: bytes) -> None:
    """See that a JPEG file is no work without end; no marker stands in compressed pixels (ITU-T T.81, B.1.1.5)."""
    if content.startswith(b"\xff\xd8"):
        scans, segments = content.count(b"\xff\xda"), sum(1 for _ in SEGMENT.finditer(content))
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise BadImage("damaged_image", f"has {scans} scans and {segments} segments: no JPEG image has so many")


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
    # Turned last, when it is small: the square in the middle is the same square however the image is turned.
    turn = TURNS.get(_orientation(image))
    return np.asarray((plain if turn is None else plain.transpose(turn)).convert("RGB"))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # nonsense in the metadata is no reason to refuse good pixels
        return 1


def _plain(image: Image.Image) -> Image.Image:
    """The image in a mode whose pixels can be averaged: L, RGB or RGBA."""
    if image.mode.startswith("I"):  # 16 bits of gray: the upper eight
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode == "L" else image.convert("RGB")
