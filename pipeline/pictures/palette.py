"""The colours of charts and runs. Colour-blind people can tell them apart (Okabe & Ito 2008)."""

from __future__ import annotations

RIGHT, WRONG = "#0072b2", "#d55e00"
"""Blue and vermilion."""

SERIES = (RIGHT, WRONG, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The colours of several lines in one chart, from the same palette."""
