"""Memory that an image took goes back to the system."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""

MAPPED_ABOVE_BYTES = 1_000_000
"""Bytes: a block above it is the system's own piece of memory, given back when it is freed."""


def give_back_large_blocks() -> None:
    """Stop glibc from keeping freed blocks of megabytes for later.

    It does so by itself after it has seen such a block freed (mallopt(3), M_MMAP_THRESHOLD), in each thread's arena by
    its own: a worker that has read images of 25 megapixels then stays 150 MB larger. Other C libraries have no such
    setting, and need none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES)
