"""Every limit and option of the service, each set by an environment variable, CAR_OR_TRUCK_ and its name."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

PREFIX = "CAR_OR_TRUCK_"


class SettingsFault(Exception):
    """An environment variable cannot be used; the message is one line that says which and why."""


class Settings(BaseModel):
    """What an operator may change: `CAR_OR_TRUCK_MAX_IMAGES=8` sets `max_images`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    token: str = Field("", description="all but health checks then need the header `Authorization: Bearer TOKEN`")
    cors_origins: str = Field("", description="web pages of these origins (with commas between) may call the service")
    workers: int = Field(0, ge=0, le=256, description="processes that answer; 0 is one a core")
    max_body_megabytes: PositiveFloat = Field(16, description="size of a request; above it 413")
    max_images: PositiveInt = Field(64, description="images in a request; above it 413")
    max_megapixels: float = Field(25, gt=0, le=178, description="size of an image, looked up before it is decoded")
    max_request_megapixels: PositiveFloat = Field(100, description="size of all images of a request together")
    max_requests: PositiveInt = Field(64, description="requests a worker holds, at work or waiting; above it 429")
    max_held_megabytes: PositiveFloat = Field(128, description="request bodies a worker holds; above it 429")
    body_seconds: PositiveFloat = Field(20, description="time for a client to send its request; then 408")
    send_seconds: PositiveFloat = Field(20, description="time for a client to take each part of its answer")
    queue_seconds: PositiveFloat = Field(10, description="time a request waits for its turn; then 429")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The defaults, changed by what the environment says; an empty variable changes nothing.

        Raises:
            SettingsFault: a variable names no setting, or its value is none that the setting can have.
        """
        chosen = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX) and value
        }
        try:
            return cls.model_validate(chosen)
        except ValidationError as fault:
            first = fault.errors()[0]
            variable = f"{PREFIX}{first['loc'][0]}".upper()
            if first["type"] == "extra_forbidden":
                known = ", ".join(f"{PREFIX}{name}".upper() for name in cls.model_fields)
                raise SettingsFault(f"{variable} is no setting of the service; there are {known}") from None
            raise SettingsFault(f"{variable} is {first['input']!r}: {first['msg']}") from None

    @property
    def origins(self) -> list[str]:
        """The origins of `cors_origins`, one by one."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
