"""How the service says no: a status, a code for programs, and a sentence for people."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from serving.metrics import REFUSALS


class Refusal(Exception):
    """A request, or one image of it, that is not answered.

    Attributes:
        status: HTTP's, from 400 to 499.
        code: the reason in one word, always the same for the same reason.
        message: the reason as a sentence, with what to do about it.
        index, filename: the image it is about; None where it is about the whole request.
    """

    def __init__(
        self, status: int, code: str, message: str, *, index: int | None = None, filename: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.index, self.filename = index, filename

    def document(self) -> dict[str, Any]:
        """The refusal as JSON shows it; counts it."""
        REFUSALS.labels(self.code).inc()
        about = {} if self.index is None else {"index": self.index, "filename": self.filename}
        return {"error": self.message, "code": self.code} | about

    def response(self) -> JSONResponse:
        """The whole answer; a client that was too fast is told when to try again."""
        headers = {"Retry-After": "1"} if self.status == 429 else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.document(), self.status, headers)
