"""Every limit and option of the service. The environment variable CAR_OR_TRUCK_ and its name sets it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

PREFIX = "CAR_OR_TRUCK_"


class SettingsFault(Exception):
    """The service cannot use an environment variable; the message is one line that says which and why."""


class Settings(BaseModel):
    """What an operator can change: `CAR_OR_TRUCK_MAX_IMAGES=8` sets `max_images`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    token: str = Field("", description="all but health checks then need the header `Authorization: Bearer TOKEN`")
    cors_origins: str = Field("", description="web pages of these origins, separated by commas, may call the service")
    workers: int = Field(0, ge=0, le=256, description="processes that answer; 0 means one for each core")
    max_body_megabytes: PositiveFloat = Field(16, description="size of a request; a larger one gets 413")
    max_images: PositiveInt = Field(64, description="images in a request; more get 413")
    max_megapixels: float = Field(25, gt=0, le=178, description="size of an image; a larger one gets 422")
    max_request_megapixels: PositiveFloat = Field(100, description="size of all images of a request; more get 413")
    max_requests: PositiveInt = Field(64, description="requests that a worker works on or keeps waiting; more get 429")
    max_held_megabytes: PositiveFloat = Field(128, description="size of all request bodies in a worker; more get 429")
    body_seconds: PositiveFloat = Field(20, description="time for a client to send its request; a slower one gets 408")
    send_seconds: PositiveFloat = Field(20, description="time for a client to take each part of its answer")
    queue_seconds: PositiveFloat = Field(10, description="time for a request to wait for its turn; then it gets 429")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The defaults, with the values that the environment sets; an empty variable changes nothing.

        Raises:
            SettingsFault: a variable is not a setting, or its value is not possible.
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
                raise SettingsFault(f"{variable} is not a setting of the service; the settings are {known}") from None
            raise SettingsFault(f"{variable} is {first['input']!r}: {first['msg']}") from None

    @property
    def origins(self) -> list[str]:
        """The origins in `cors_origins`, as a list."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
