"""The addresses that answer GET: the page /ui, /docs, /model, /metrics, /openapi.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving.metrics import exposition

WEB = Path(__file__).parent / "web"
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page may load its own script, style and pictures and talk to its own server, and nothing else."""

SWAGGER = STRICT.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
"""Swagger UI's script sets styles."""


class _Files(StaticFiles):
    """Sends files with the strict policy, and makes a browser check each time whether they changed."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update({"Content-Security-Policy": STRICT, "Cache-Control": "no-cache"})
        return response


def make_pages(document: Callable[[list[str]], dict[str, Any]], samples: Path) -> Starlette:
    """An application to mount at the root of the service; put the model's card in its `state.card`.

    Args:
        document: makes the OpenAPI document from the names of the two classes.
        samples: the folder with sample images; it may be missing.
    """

    async def model(request: Request) -> Response:
        return JSONResponse(request.app.state.card)

    async def openapi(request: Request) -> Response:
        return JSONResponse(document(request.app.state.card["class_names"]))

    async def metrics(_: Request) -> Response:
        return Response(await run_in_threadpool(exposition), media_type="text/plain; version=0.0.4")

    async def docs(_: Request) -> Response:
        return FileResponse(WEB / "docs.html", headers={"Content-Security-Policy": SWAGGER})

    async def home(_: Request) -> Response:
        return RedirectResponse("ui/")

    async def sample_names(_: Request) -> Response:
        return JSONResponse(sorted(path.name for path in samples.glob("*.png")))

    return Starlette(
        routes=[
            Route("/", home),
            Route("/model", model),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
            Route("/docs.json", openapi),  # BentoML would put its own document here
            Route("/docs", docs),
            Route("/ui/samples", sample_names),
            *([Mount("/ui/samples", _Files(directory=samples))] if samples.is_dir() else []),
            Route("/ui", home),  # behind a proxy, Starlette's own redirect would name the wrong host
            Mount("/ui", _Files(directory=WEB, html=True)),
        ]
    )
