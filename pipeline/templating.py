"""Text made from the templates beside this file: Markdown as it stands, HTML with every value escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:
    """Fill pipeline/templates/`template`; a value that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("pipeline"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html", "svg"], default=False),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment.get_template(template).render(values)


def _percent(share: float | None, digits: int = 2) -> str:
    """A share as text: 0.979 -> 97.90 %, None -> –."""
    return "–" if share is None else f"{share:.{digits}%}".replace("%", " %")
