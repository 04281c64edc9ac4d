"""The one place where a file of any size becomes the 32x32 pixels that the model knows.

An image is turned as its EXIF orientation says, laid over white where it is transparent, cropped to the square in its
middle, and brought to 32x32 by averaging areas. An opaque 32x32 image passes untouched.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIDE = 32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 25_000_000


class BadImage(ValueError):
    """The file is no image that is served; the message is a sentence about the file."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """The file at `path` as uint8 `[32, 32, 3]`, RGB.

    Raises:
        BadImage: it is of no known format, damaged, or too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(
                    f"has {image.width}×{image.height} pixels; at most {MAX_PIXELS / 1e6:g} megapixels are read"
                )
            return to_model_pixels(image)
    except BadImage:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise BadImage(f"is no readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from error


def to_model_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """An opened image as uint8 `[32, 32, 3]`, RGB."""
    upright = ImageOps.exif_transpose(image)
    rgb = _opaque(upright).convert("RGB")
    if rgb.size != (SIDE, SIDE):
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.resize((SIDE, SIDE), Image.Resampling.BOX, box=(left, top, left + side, top + side))
    return np.asarray(rgb)


def _opaque(image: Image.Image) -> Image.Image:
    """The image over white where it is transparent; 16-bit gray brought to 8."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image
