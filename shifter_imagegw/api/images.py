# SPDX-License-Identifier: BSD-3-Clause
"""Images: pull, lookup, list, queue, doimport, expire, autoexpire (gateway contract, sections 2.6 and 2.7)."""

from __future__ import annotations

from flask import Blueprint, Response

from shifter_imagegw.api.answers import json_answer
from shifter_imagegw.api.callers import sent_ids, sent_object, session_for
from shifter_imagegw.auth import Authenticator
from shifter_imagegw.errors import NotSupported, PermissionDenied
from shifter_imagegw.images import image_object, queue_entry
from shifter_imagegw.manager import ImageManager

_IMAGE = "/<system>/<itype>/<tag:tag>"
_SYSTEM = "/<system>/"
_ROUTE = {"strict_slashes": False, "provide_automatic_options": False}


def images_blueprint(manager: ImageManager, authenticator: Authenticator) -> Blueprint:
    """The verbs about images below ``/api``."""
    blueprint = Blueprint("images", __name__, url_prefix="/api")

    @blueprint.post(f"/pull{_IMAGE}", **_ROUTE)
    def pull(system: str, itype: str, tag: str) -> Response:
        session = session_for(authenticator, system)
        sent = sent_object()
        uids, gids = sent_ids(sent, "allowed_uids"), sent_ids(sent, "allowed_gids")
        return json_answer(image_object(manager.pull(session, itype, tag, uids, gids)))

    @blueprint.get(f"/lookup{_IMAGE}", **_ROUTE)
    def lookup(system: str, itype: str, tag: str) -> Response:
        session = session_for(authenticator, system)
        return json_answer(image_object(manager.lookup(session, itype, tag)))

    @blueprint.get(f"/list{_SYSTEM}", **_ROUTE)
    def list_images(system: str) -> Response:
        session = session_for(authenticator, system)
        return json_answer({"list": [image_object(image) for image in manager.list_images(session)]})

    @blueprint.get(f"/queue{_SYSTEM}", **_ROUTE)
    def queue(system: str) -> Response:
        session = session_for(authenticator, system)
        return json_answer({"list": [queue_entry(pull) for pull in manager.queue(session)]})

    @blueprint.post(f"/doimport{_IMAGE}", **_ROUTE)
    def doimport(system: str, itype: str, tag: str) -> Response:
        if not manager.may_import(session_for(authenticator, system)):
            raise PermissionDenied("you may not import images; ask the site to add you to ImportUsers")
        raise NotSupported(f"importing {itype}:{tag[:300]}: imports are not in this version")

    # A GET that removes images: the contract has it so, for admins with a fresh credential only.
    @blueprint.get(f"/expire{_IMAGE}", **_ROUTE)
    def expire(system: str, itype: str, tag: str) -> Response:
        if not manager.is_admin(session_for(authenticator, system)):
            return json_answer({"status": False})
        raise NotSupported(f"expiring {itype}:{tag[:300]}: removing images is not in this version")

    @blueprint.get(f"/autoexpire{_SYSTEM}", **_ROUTE)
    def autoexpire(system: str) -> Response:
        if not manager.is_admin(session_for(authenticator, system)):
            return json_answer({"status": False})
        raise NotSupported("removing expired images is not in this version")

    return blueprint
