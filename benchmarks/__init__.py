"""Measurements that take longer than tests may; each writes a Markdown page here and says how it was made."""

import pipeline  # noqa: F401  # Ctrl-C while libraries are imported is no traceback
