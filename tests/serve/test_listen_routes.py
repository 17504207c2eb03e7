"""OpenAI's route of transcription: its own client, every format, every error."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
from listening import PHRASES, RATE, recording
from openai import BadRequestError, NotFoundError, OpenAI
from served import served

from llasa.serve.app import Settings
from llasa.tts import Llasa

TEXT = f"{PHRASES['alma'][1]} {PHRASES['edith'][1]}"


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def client(listening_folder: Path) -> Iterator[OpenAI]:
    with served(Llasa.load(listening_folder, device="cpu", dtype="float32"), Settings(name="own")) as address:
        yield OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def talk() -> tuple[str, bytes]:
    return "talk.wav", wav(recording(["alma", "edith"]))


def test_the_openai_client_gets_every_format(client: OpenAI, talk: tuple[str, bytes]) -> None:
    heard = client.audio.transcriptions
    assert heard.create(model="whisper-1", file=talk).text == TEXT
    assert heard.create(model="own", file=talk, response_format="text") == f"{TEXT}\n"
    assert PHRASES["edith"][1] in heard.create(model="own", file=talk, response_format="srt")
    assert heard.create(model="own", file=talk, response_format="vtt").startswith("WEBVTT\n")
    whole = heard.create(
        model="own", file=talk, response_format="verbose_json", language="en", timestamp_granularities=["segment"]
    )
    assert (whole.text, whole.language) == (TEXT, "en")
    assert float(whole.duration) == pytest.approx(len(recording(["alma", "edith"])) / RATE, abs=0.01)
    assert [segment.text for segment in whole.segments or ()] == [PHRASES[name][1] for name in ("alma", "edith")]
    assert all(segment.start < segment.end and segment.avg_logprob <= 0 for segment in whole.segments or ())


def test_silence_is_an_empty_transcript(client: OpenAI) -> None:
    assert client.audio.transcriptions.create(model="own", file=("x.wav", wav(np.zeros(RATE)))).text == ""


def test_errors_name_what_is_wrong(client: OpenAI, talk: tuple[str, bytes]) -> None:
    heard = client.audio.transcriptions
    with pytest.raises(NotFoundError, match="there is no model other: use own"):
        heard.create(model="other", file=talk)
    for data, words in ((b"not sound" * 99, "cannot be read as audio"), (b"", "is empty")):
        with pytest.raises(BadRequestError, match=words) as error:
            heard.create(model="own", file=("x.wav", data))
        assert error.value.param == "file"
    with pytest.raises(BadRequestError, match="times of segments only"):
        heard.create(model="own", file=talk, response_format="verbose_json", timestamp_granularities=["word"])


def test_a_model_that_was_not_trained_for_it_says_so(address: str, talk: tuple[str, bytes]) -> None:
    answer = requests.post(f"{address}/v1/audio/transcriptions", files={"file": talk}, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "this model was not trained to recognise speech"
