"""``POST /v1/local/remove``: a model's files, taken away while nothing uses them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from hybridd.api.endpoints import Call, Endpoint
from hybridd.errors import HybriddError, InvalidRequest, NotFound
from hybridd.local import library, removal
from hybridd.local.library import Folders
from hybridd.local.residency import Residency
from hybridd.local.residency_models import Known


class RemoveBody(msgspec.Struct, forbid_unknown_fields=True):
    """``dry_run``: only say what would go."""

    model: str
    dry_run: bool = False


class Removed(msgspec.Struct):
    """``removed``: files and links that are gone (or would be); ``freed``: bytes the disk gets back; ``aliases``: names
    that its file keeps."""

    model: str
    removed: list[removal.Removal]
    freed: int
    dry_run: bool
    aliases: list[str]


async def remove(call: Call) -> Removed:
    """Refused while the model is loaded or being loaded. Of one that was linked only the link goes."""
    asked: RemoveBody = call.body
    residency = call.services.residency
    known = await residency.find(asked.model)
    where = _folders(residency)
    model, doomed = await asyncio.to_thread(_doomed, known, where)
    # Asked for last: nothing is awaited between here and the start of the removal.
    busy = next((one for one in (model.id, *model.aliases) if residency.worker(one) or residency.load_of(one)), None)
    if busy is not None and not asked.dry_run:
        raise InvalidRequest(f"{model.id} is loaded; unload {busy} first.", code="model_loaded", status=409)
    done = doomed
    if not asked.dry_run:
        try:
            done = await asyncio.shield(asyncio.to_thread(removal.remove, doomed, where))
        except OSError as error:
            text = f"{model.id} could not be removed: {error.strerror or error} ({error.filename or known.path})."
            raise HybriddError(text, code="not_removed") from error
        finally:
            await residency.scan()
    return Removed(model.id, done, sum(one.bytes for one in done), asked.dry_run, model.aliases)


def _folders(residency: Residency) -> Folders:
    """Where the provider looks.

    Raises:
        NotFound: nowhere, the provider is not configured.
    """
    places = residency.shelf.places
    models, hub, default = places["models_dir"], places["cache_dir"], places["default_path"]
    if models is None or hub is None:
        raise NotFound("There is no folder of local models.", code="model_not_found")
    return Folders(Path(models), Path(hub), Path(default) if default else None)


def _doomed(known: Known, where: Folders) -> tuple[library.Model, list[removal.Removal]]:
    """Blocking: the folders are listed."""
    model = library.find(library.models(where), known.id)
    return model, removal.plan_removal(model, where)


ENDPOINTS = [
    Endpoint("POST", "/v1/local/remove", "Remove a model's files from this machine", remove, Removed, body=RemoveBody),
]
