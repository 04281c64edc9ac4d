"""Measurements that take longer than a test may; each writes a Markdown page here, which says how it was made."""

import pipeline  # noqa: F401  # so Ctrl-C prints no traceback while libraries are imported
