"""Text from templates: Markdown without escaping, HTML with every value escaped. Each room has its own templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def render(template: Path, **values: Any) -> str:
    """Fill `template`. A missing value is an error. The templates that it includes are in the same folder."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html", "svg"], default=False),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment.get_template(template.name).render(values)


def _percent(share: float | None, digits: int = 2) -> str:
    """A share as text: 0.979 -> 97.90 %, None -> –."""
    return "–" if share is None else f"{share:.{digits}%}".replace("%", " %")
