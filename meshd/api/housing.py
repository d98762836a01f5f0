"""Loading, unloading and pinning models over HTTP: bodies in and out of the model desk.

    POST /mesh/v1/models/load    {"model", "force": false}  -> {"model", "warm", "pinned", ...}
    POST /mesh/v1/models/unload  {"model"}
    POST /mesh/v1/models/pin     {"model"}
    POST /mesh/v1/models/unpin   {"model"}

They speak of this node's own memory, and are for its owner alone (`meshd.api.origin.check_owner`).
A load that does not fit is 507 with the sum; one that waits for busy models is 503. There is no
timeout: a large model takes minutes, and who leaves does not stop it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from meshd.api.body import decode_object
from meshd.api.errors import ApiError, unsupported
from meshd.api.fields import Fields
from meshd.api.paths import Route
from protocol.limits import TEXT_MAX_CHARS

ACTIONS: dict[Route, str] = {
    Route.LOAD_MODEL: "load",
    Route.UNLOAD_MODEL: "unload",
    Route.PIN_MODEL: "pin",
    Route.UNPIN_MODEL: "unpin",
}
"""What each of `paths.HOUSING` asks of the desk."""


class ModelDesk(Protocol):
    """Who carries out the owner's words about models."""

    async def change(self, action: str, model: str, *, force: bool) -> Mapping[str, Any]:
        """Carry out one of ACTIONS; the model's state afterwards. Raises RequestFailed."""
        ...


async def answer_housing(desk: ModelDesk | None, route: Route, body: bytes) -> Mapping[str, Any]:
    """The JSON object that answers one of `paths.HOUSING`. Raises ApiError and RequestFailed."""
    fields = Fields(decode_object(body))
    model = fields.text("model", TEXT_MAX_CHARS)
    force = route is Route.LOAD_MODEL and fields.flag("force")
    for name in fields.rest:
        raise unsupported(name[:100], f"'{name[:100]}' is not a field of this request.")
    if not model:
        raise fields.absent("model", "It is a model of this node; `meshctl models` lists them.")
    if desk is None:
        raise ApiError(
            501,
            "This node was started without models of its own to load or unload.",
            code="not_implemented",
            kind="server_error",
            headers=(("x-should-retry", "false"),),
        )
    return await desk.change(ACTIONS[route], model, force=force)
