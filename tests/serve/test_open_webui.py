"""Open WebUI's calls, made as its backend makes them (backend/open_webui/routers/audio.py, engine openai)."""

import io

import pytest
import requests
import soundfile
from served import served

from llasa.serve.app import Settings
from llasa.tts import Llasa

# What its settings hold when nobody has changed them, and what its page asks for then.
MODEL, VOICE = "tts-1", "alloy"
# What its own page offers where a server tells it nothing.
MODELS, VOICES = ("tts-1", "tts-1-hd"), ("alloy", "echo", "fable", "onyx", "nova", "shimmer")


def speak(address: str, key: str, **payload: object) -> requests.Response:
    """`speech`: the page's payload, with the model of the settings and further parameters, as JSON."""
    headers = {
        "Content-Type": "application/json", "Authorization": f"Bearer {key}", "X-OpenWebUI-User-Name": "somebody",
        "X-OpenWebUI-User-Role": "user",
    }  # fmt: skip
    return requests.post(f"{address}/v1/audio/speech", json=payload, headers=headers, timeout=60)


def test_it_lists_models_and_voices_and_speaks(address: str) -> None:
    models = requests.get(f"{address}/v1/audio/models").json().get("models", [])
    voices = {voice["id"]: voice["name"] for voice in requests.get(f"{address}/v1/audio/voices").json()["voices"]}
    assert [model["id"] for model in models] == ["tiny"]
    assert voices["bruno"] == "bruno"
    for model, voice in ((MODEL, VOICE), ("tiny", "bruno")):
        answer = speak(address, "", input="Hello there.", voice=voice, model=model)
        answer.raise_for_status()
        assert soundfile.info(io.BytesIO(answer.content)).format == "MP3"  # it stores what comes as .mp3
    answer = speak(address, "", input="Hello there.", voice=VOICE, model=MODEL, speed=1.5, response_format="wav")
    assert answer.content[:4] == b"RIFF"


def test_it_reads_an_error(address: str) -> None:
    answer = speak(address, "", input="Hello there.", voice="nobody", model=MODEL)
    with pytest.raises(requests.HTTPError):
        answer.raise_for_status()
    assert "no voice called nobody" in answer.json()["error"]["message"]


def test_a_server_with_a_key_understands_what_it_offers_without_the_lists(tiny: Llasa) -> None:
    """It asks for the lists without a key. Refused, it offers OpenAI's models and voices."""
    with served(tiny, Settings(key="secret")) as address:
        for path in ("models", "voices"):
            with pytest.raises(requests.HTTPError):
                requests.get(f"{address}/v1/audio/{path}").raise_for_status()
        for model in MODELS:
            assert speak(address, "secret", input="Hi.", voice=VOICE, model=model).status_code == 200
        for voice in VOICES:
            assert speak(address, "secret", input="Hi.", voice=voice, model=MODEL).status_code == 200
        assert speak(address, "wrong", input="Hi.", voice=VOICE, model=MODEL).status_code == 401
