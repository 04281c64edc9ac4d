"""Gives memory that an image took back to the system."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
"""The option's number in glibc's malloc.h."""

MAPPED_ABOVE_BYTES = 1_000_000
"""In bytes. A larger block becomes a mapping of its own, which goes back to the system when it is freed."""


def give_back_large_blocks() -> None:
    """Stop glibc from keeping freed blocks of megabytes for later use.

    glibc raises its threshold when such a block is freed (mallopt(3), M_MMAP_THRESHOLD), and then keeps blocks in the
    arena of each thread. So a worker that has read images of 25 megapixels stays 150 MB larger. Other C libraries have
    no such setting and do not need it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES)
