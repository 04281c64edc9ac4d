from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.images import BadImage, read_image
from tests.hostile import many_scans, photo, png, saved, with_exif_numbers


def image_of(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_an_opaque_32x32_image_passes_untouched(some_images):
    for pixels in some_images:
        for format in ("PNG", "BMP"):
            read = read_image(saved(Image.fromarray(pixels), format))
            assert np.array_equal(read.pixels, pixels)
            assert (read.width, read.height) == (32, 32)


def test_the_square_in_the_middle_is_averaged_area_by_area():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    expected = pixels[:, 32:96].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    small = read_image(saved(Image.fromarray(pixels), "PNG")).pixels
    assert np.abs(small - expected).max() <= 1  # rounded after each axis


def test_transparent_pixels_are_white_and_hide_their_colour():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (200, 30, 30, 255)
    pixels[:, 32:] = (0, 255, 0, 0)
    small = read_image(saved(Image.fromarray(pixels), "PNG")).pixels
    assert (small[:, 20:] == 255).all()
    assert (small[:, :12] == (200, 30, 30)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation):
    turned_by = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    upright = image_of(96, 64, 3)
    stored = upright.transpose(turned_by[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = read_image(saved(stored, "PNG", exif=exif)).pixels
    expected = read_image(saved(upright, "PNG")).pixels
    assert np.abs(turned.astype(int) - expected).max() <= 1  # rows and columns are averaged in another order


def test_damaged_exif_data_is_not_an_error_and_its_orientation_is_applied():
    pixels = image_of(32, 32, 3)
    orientation, maker = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0), struct.pack(">HHII", 0x10F, 2, 1000, 0xFFFF)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + maker + orientation + bytes(4)  # the maker's name lies behind the end
    turned = read_image(saved(pixels, "PNG", exif=exif)).pixels
    assert np.array_equal(turned, np.rot90(np.asarray(pixels), -1))
    unreadable = read_image(saved(pixels, "PNG", exif=exif[:12])).pixels
    assert np.array_equal(unreadable, pixels)


def test_exif_data_of_many_numbers_takes_little_memory():
    content = with_exif_numbers("PNG", 5)
    tracemalloc.start()
    read_image(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6, f"{peak / 1e6:.0f} MB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_the_same_gray_gives_that_gray(mode):
    gray = Image.fromarray(np.full((50, 40), 255 if mode == "1" else 100, np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.full((50, 40), 100 * 257, np.uint16))
    else:
        image = gray.convert("RGB").convert(mode) if mode in {"CMYK", "RGBA"} else gray.convert(mode)
    file = saved(image, "JPEG", quality=100) if mode == "CMYK" else saved(image, "PNG")
    expected = 255 if mode == "1" else 100
    assert np.abs(read_image(file).pixels.astype(int) - expected).max() <= 2


def test_a_large_jpeg_is_decoded_small_and_looks_the_same():
    smooth = image_of(40, 60, 3).resize((3000, 2000), Image.Resampling.BICUBIC)
    read = read_image(saved(smooth, "JPEG", quality=95))
    whole = read_image(saved(smooth, "PNG"))
    assert (read.width, read.height) == (3000, 2000)
    assert np.abs(read.pixels.astype(int) - whole.pixels).mean() < 2


def test_a_moving_gif_counts_as_its_first_frame():
    first, second = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (40, 40), (0, 0, 255))
    pixels = read_image(saved(first, "GIF", save_all=True, append_images=[second])).pixels
    assert (pixels == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"hello", "unknown_format"),
        (saved(image_of(9, 9, 3), "TIFF"), "unknown_format"),
        (saved(image_of(99, 99, 3), "PNG")[:-500], "damaged_image"),
        (many_scans(100), "damaged_image"),
        (with_exif_numbers("JPEG", 1), "damaged_image"),
        (png(5001, 5000, 1, 0), "image_too_large"),
        (png(60000, 60000, 1, 0), "image_too_large"),
    ],
)
def test_each_fault_has_its_code(content, code):
    with pytest.raises(BadImage) as caught:
        read_image(content)
    assert caught.value.code == code


def test_the_number_of_pixels_is_checked_before_decoding():
    bomb = png(30000, 30000, 1, 0, bytes(1000))
    with pytest.raises(BadImage, match="30000×30000 pixels; at most 0.9 megapixels|more than 0.9 megapixels"):
        read_image(bomb, max_pixels=9e5)


def test_a_progressive_jpeg_with_its_metadata_is_read():
    content = saved(photo(64), "JPEG", progressive=True, exif=b"Exif\0\0" + bytes(60_000), comment=b"x" * 1000)
    assert read_image(content).width == 64


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(content):
    _read_or_refuse(content)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]), st.data())
def test_any_damaged_image_is_read_or_refused(format, data):
    content = bytearray(saved(image_of(40, 40, 3), format))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _read_or_refuse(bytes(content[: data.draw(st.integers(1, len(content)))]))


@given(
    st.sampled_from(["PNG", "WEBP", "BMP"]),
    st.integers(1, 80),
    st.integers(1, 80),
    st.sampled_from(["L", "RGB", "RGBA"]),
)
def test_any_size_becomes_32x32(format, width, height, mode):
    file = io.BytesIO()
    Image.new(mode, (width, height), 128 if mode == "L" else (128,) * len(mode)).save(file, format)
    read = read_image(file.getvalue())
    assert (read.width, read.height) == (width, height)


def _read_or_refuse(content: bytes) -> None:
    try:
        read = read_image(content)
    except BadImage as fault:
        assert str(fault)
        return
    assert read.pixels.shape == (32, 32, 3)
    assert read.pixels.dtype == np.uint8
