"""The voices: those there are, and clients' own, which are stored where the command line stores them."""

import asyncio
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile

from llasa.errors import LlasaError
from llasa.files import exists
from llasa.serve.answers import unless_gone
from llasa.serve.decoding import BYTES
from llasa.serve.problems import Problem
from llasa.serve.service import Service, no_voice
from llasa.voice import Voice, check_name, user_folder


def voice_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/audio/voices")

    @router.get("")
    def list_voices() -> dict[str, Any]:
        """The presets and the uploaded voices; `default` is what is spoken where no voice is asked for."""
        default = service.llasa.voice()
        voices = [_facts(name, path) for name, path in service.llasa.voices().items()]
        return {"object": "list", "voices": voices, "default": default.name if default else None}

    @router.post("", status_code=201)
    async def add(
        request: Request,
        audio_sample: Annotated[UploadFile, File(description="3 to 10 seconds of one person speaking.")],
        name: Annotated[str, Form()],
        consent: Annotated[bool, Form(description="Whether the speaker agrees to be cloned; it must be true.")] = False,
        ref_text: Annotated[str | None, Form(description="The words spoken; without them they are recognised.")] = None,
    ) -> dict[str, Any]:
        """Stores a voice."""
        if not consent:
            raise Problem("clone only who agreed: send consent=true if the speaker did", 400, "consent", "no_consent")
        path = user_folder() / f"{_checked(name)}.safetensors"
        if await asyncio.to_thread(exists, path):
            raise _taken(name)
        data = await audio_sample.read(BYTES + 1)
        text = ref_text.strip() or None if ref_text else None
        voice = await unless_gone(request, service.clone(data, text, name, request.state.client))
        await asyncio.to_thread(_store, replace(voice, consent=True), path)
        return _facts(name, path) | {"text": voice.text}

    @router.delete("/{voice_id}")
    async def remove(voice_id: str) -> dict[str, Any]:
        """Removes an uploaded voice."""
        own = {name: path for name, path in service.llasa.voices().items() if path.parent == user_folder()}
        if voice_id not in own:
            raise no_voice(voice_id, own, "that was uploaded ", 404)
        await asyncio.to_thread(own[voice_id].unlink, missing_ok=True)
        return {"id": voice_id, "object": "audio.voice", "deleted": True}

    return router


def _facts(name: str, path: Path) -> dict[str, Any]:
    """What clients are told of a voice; of an uploaded one, whether its speaker agreed."""
    facts = {"id": name, "name": name, "object": "audio.voice"}
    if path.parent != user_folder():
        return facts | {"kind": "preset"}
    try:
        agreed = Voice.load(path).consent
    except LlasaError:  # it is damaged, as whoever speaks with it will be told
        agreed = False
    return facts | {"kind": "uploaded", "consent": agreed}


def _store(voice: Voice, path: Path) -> None:
    """Saves a voice under a name that no other has, whatever other servers store at the same moment."""
    hidden = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    voice.save(hidden)
    try:
        os.link(hidden, path)
    except FileExistsError as error:
        raise _taken(path.stem) from error
    finally:
        hidden.unlink()


def _checked(name: str) -> str:
    try:
        return check_name(name)
    except LlasaError as error:
        raise Problem(str(error), param="name") from error


def _taken(name: str) -> Problem:
    return Problem(f"there is a voice called {name} already: delete it first", 409, "name", "voice_exists")
