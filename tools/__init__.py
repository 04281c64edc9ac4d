"""What sets up, and what makes the pictures and tables of the guides."""

import pipeline  # noqa: F401  # Ctrl-C while libraries are imported is no traceback
