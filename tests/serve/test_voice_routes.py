"""Voices: listed, uploaded, used, removed; recordings that are none; clones for one request."""

import base64
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

from llasa.serve import uploads
from llasa.tts import Llasa
from llasa.voice import Voice

SAID = "The words that are spoken in the recording."


@pytest.fixture(scope="module")
def recording(tiny: Llasa) -> bytes:
    """The embedded voice says something, as somebody's recording."""
    samples = tiny.say(SAID, voice="bruno", seed=1).samples
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV")
    return buffer.getvalue()


def add(address: str, data: bytes, **fields: str) -> requests.Response:
    files = {"audio_sample": ("voice.wav", data, "audio/wav")}
    return requests.post(f"{address}/v1/audio/voices", files=files, data=fields, timeout=120)


def test_a_voice_is_uploaded_used_and_removed(address: str, recording: bytes, home: Path) -> None:
    answer = add(address, recording, name="my own", ref_text=SAID, consent="true")
    assert answer.status_code == 201, answer.text
    assert answer.json() == {
        "id": "my own", "name": "my own", "object": "audio.voice", "kind": "uploaded", "consent": True, "text": SAID
    }  # fmt: skip
    stored = Voice.load(home / "voices/my own.safetensors")
    assert (stored.text, stored.consent) == (SAID, True)
    listed = requests.get(f"{address}/v1/audio/voices").json()
    assert listed["default"] == "alma"
    assert {"id": "my own", "kind": "uploaded", "consent": True}.items() <= listed["voices"][0].items()
    assert {voice["kind"] for voice in listed["voices"][1:]} == {"preset"}
    spoken = requests.post(f"{address}/v1/audio/speech", json={"input": "Hi.", "voice": "my own"}, timeout=60)
    assert spoken.status_code == 200
    again = add(address, recording, name="my own", ref_text=SAID, consent="true")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "voice_exists")
    assert requests.delete(f"{address}/v1/audio/voices/my own").json()["deleted"]
    assert not list((home / "voices").iterdir())
    for name in ("my own", "alma", "..", "%2e%2e%2fx"):
        assert requests.delete(f"{address}/v1/audio/voices/{name}").status_code in (404, 405)


def test_of_voices_of_one_name_stored_at_the_same_moment_one_is_kept(
    address: str, recording: bytes, home: Path
) -> None:
    """Also by two servers: here nothing but the file system keeps them apart."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: add(address, recording, name="x", ref_text=SAID, consent="true"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert [path.name for path in (home / "voices").iterdir()] == ["x.safetensors"]
    requests.delete(f"{address}/v1/audio/voices/x")


def test_a_damaged_voice_is_listed_without_consent(address: str, home: Path) -> None:
    (home / "voices").mkdir(exist_ok=True)
    (home / "voices/broken.safetensors").write_bytes(b"nonsense")
    try:
        voices = requests.get(f"{address}/v1/audio/voices").json()["voices"]
    finally:
        (home / "voices/broken.safetensors").unlink()
    assert [voice["consent"] for voice in voices if voice["kind"] == "uploaded"] == [False]


def test_a_recording_is_cloned_for_one_request(address: str, recording: bytes, tiny: Llasa) -> None:
    url = f"data:audio/wav;base64,{base64.b64encode(recording).decode()}"
    body = {"input": "Hi there.", "ref_audio": url, "ref_text": SAID, "seed": 1, "response_format": "wav"}
    answer = requests.post(f"{address}/v1/audio/speech", json=body, timeout=120)
    samples, rate = soundfile.read(io.BytesIO(recording), dtype="float32")
    voice = tiny.clone(samples, SAID, rate=rate)
    wanted = np.concatenate(list(tiny.stream("Hi there.", voice=voice, seed=1)))
    np.testing.assert_allclose(np.frombuffer(answer.content[44:], "<i2") / 32768, wanted, atol=1e-4)
    body |= {"ref_audio": "bruno", "ref_text": None}
    assert requests.post(f"{address}/v1/audio/speech", json=body, timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "x", "ref_text": SAID}, "clone only who agreed"),
        ({"name": "../x", "consent": "true"}, "cannot name a voice"),
        ({"name": "x/y", "consent": "true"}, "cannot name a voice"),
        ({"name": "x", "consent": "true", "ref_text": "A quite different sentence about the weather."}, "sounds like"),
    ],
)
def test_a_voice_that_cannot_be_is_refused(
    address: str, recording: bytes, home: Path, fields: dict[str, str], message: str
) -> None:
    answer = add(address, recording, **fields)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert not list(home.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty (0 bytes)"), (b"nonsense" * 1000, "cannot be read as audio"), (bytes(21 << 20), "more than 20 MB")],
)
def test_a_file_that_is_no_recording_is_refused(address: str, data: bytes, message: str) -> None:
    answer = add(address, data, name="x", consent="true", ref_text=SAID)
    assert answer.status_code in (400, 413)
    assert message in answer.json()["error"]["message"]


def test_a_recording_that_is_too_long_is_refused(address: str) -> None:
    soundfile.write(buffer := io.BytesIO(), np.zeros(16000 * 400, np.int16), 16000, format="FLAC", subtype="PCM_16")
    answer = add(address, buffer.getvalue(), name="x", consent="true", ref_text=SAID)
    assert answer.status_code == 400
    assert "too long" in answer.json()["error"]["message"]


def test_decoding_that_takes_too_long_is_ended(address: str, recording: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE", 0.01)
    answer = add(address, recording[:-2], name="x", consent="true", ref_text=SAID)
    assert answer.status_code == 400
    assert "too much memory or time" in answer.json()["error"]["message"]


def test_the_decoding_process_has_little_memory() -> None:
    """What asks for more than it may have ends with an error, which nobody else feels."""
    code = "from llasa.serve import decoding\ndecoding.sys.stdin = None\n"
    code += "try: decoding.main()\nexcept AttributeError: bytes(2 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert b"MemoryError" in done.stderr
