"""Write .cache/plots.html, the page that `dvc plots show` fills: DVC's own loads its chart library from the network."""

from __future__ import annotations

from pathlib import Path

import vl_convert

PAGE = Path(".cache/plots.html")
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh_tag}
<title>Plots of all trainings</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #1d2430; background: #fff; }
body > div, .plots > div { display: inline-block; vertical-align: top; margin: 0 1.5rem 1.5rem 0; max-width: 100%; }
img { max-width: min(100%, 46rem); height: auto; }
</style>
<script>(() => {JAVASCRIPT})()</script>
</head>
<body>
<h1>Plots of all trainings</h1>
<div class="plots">
{plot_divs}
</div>
</body>
</html>
"""


def main() -> None:
    """The page with Vega, Vega-Lite and Vega-Embed inside."""
    PAGE.parent.mkdir(exist_ok=True)
    script = vl_convert.javascript_bundle().replace("</script", "<\\/script")  # type: ignore[call-arg]
    PAGE.write_text(TEMPLATE.replace("JAVASCRIPT", script))


if __name__ == "__main__":
    main()
