"""Programs for the set-up, and for the pictures and tables of the guides."""

import pipeline  # noqa: F401  # so Ctrl-C prints no traceback while libraries are imported
