"""OpenAI's routes: its own client, plain HTTP, every field, every error; and ElevenLabs' routes beside them."""

import base64
import io
import json
import subprocess
import wave
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import requests
import soundfile
from openai import BadRequestError, OpenAI

from llasa import audio, ffmpeg
from llasa.serve.formats import FORMATS, Pcm
from llasa.speak.word_files import plain
from llasa.tts import Llasa

TEXT = "Hello there."


def post(address: str, path: str = "/v1/audio/speech", **body: Any) -> requests.Response:
    return requests.post(address + path, json=body, timeout=120)


def events(answer: requests.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]


@pytest.fixture(scope="module")
def spoken(tiny: Llasa) -> np.ndarray:
    """What `stream` makes of the text with seed 1."""
    return np.concatenate(list(tiny.stream(TEXT, seed=1)))


def test_what_is_served_is_what_stream_makes(address: str, spoken: np.ndarray) -> None:
    answer = post(address, input=TEXT, seed=1, response_format="wav")
    assert answer.content[44:] == audio.pcm16(spoken)
    assert answer.headers["x-llasa-seed"] == "1"
    pcm = Pcm(16000)
    assert post(address, input=TEXT, seed=1, response_format="pcm").content == pcm.push(spoken) + pcm.finish()


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "aac" or ffmpeg.installed()])
def test_the_openai_client_gets_every_format(address: str, format: Any, spoken: np.ndarray) -> None:
    client = OpenAI(base_url=f"{address}/v1", api_key="none")
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format=format, extra_body={"seed": 1}
    ) as answer:
        data = b"".join(answer.iter_bytes())
    raw = ["-f", "s16le", "-ar", "24000"] if format == "pcm" else []
    command = ["ffmpeg", "-v", "error", *raw, "-i", "-", "-f", "s16le", "-ar", "16000", "-ac", "1", "-"]
    if ffmpeg.installed():
        heard = subprocess.run(command, input=data, check=True, capture_output=True).stdout
        assert len(heard) / 2 == pytest.approx(len(spoken), abs=5000)
    assert data


def test_the_openai_client_lists_models_and_reads_errors(address: str) -> None:
    client = OpenAI(base_url=f"{address}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(BadRequestError, match="there is no voice called nobody") as error:
        client.audio.speech.create(model="tiny", voice="nobody", input=TEXT)
    assert error.value.status_code == 400
    assert (error.value.param, error.value.code) == ("voice", "voice_not_found")


def test_curl_saves_a_wav_that_python_reads(address: str) -> None:
    body = json.dumps({"input": TEXT, "response_format": "wav", "voice": {"id": "bruno"}})
    command = ["curl", "-sS", "-f", f"{address}/v1/audio/speech", "-H", "Content-Type: application/json", "-d", body]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(data)) as file:
        assert len(file.readframes(file.getnframes())) > 16000


def test_speed_is_that_of_stream(address: str, tiny: Llasa) -> None:
    wanted = np.concatenate(list(tiny.stream(TEXT, seed=1, speed=2.0)))
    answer = post(address, input=TEXT, seed=1, speed=2, response_format="wav")
    assert answer.content[44:] == audio.pcm16(wanted)


def test_events_carry_the_same_sound(address: str, spoken: np.ndarray) -> None:
    *deltas, done = events(post(address, input=TEXT, seed=1, response_format="wav", stream_format="sse"))
    data = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert data[44:] == audio.pcm16(spoken)
    codes = len(spoken) // 320
    assert done["usage"] == {"input_tokens": len(TEXT), "output_tokens": codes, "total_tokens": len(TEXT) + codes}
    assert done["type"] == "speech.audio.done"


def test_the_last_event_tells_when_words_are_said(address: str, tiny: Llasa) -> None:
    text = "It cost $5."
    searched, plainly = (
        events(post(address, input=text, seed=1, stream_format="sse", timestamps=True, **options))[-1]
        for options in ({"best_of": 2, "budget": 5}, {})
    )
    for told in (searched, plainly):
        assert told["type"] == "speech.audio.done"
        assert " ".join(one["word"] for one in told["words"]) == text
        assert told["words"][-1]["end"] == pytest.approx(told["seconds"], abs=0.002)
    stream = tiny.stream(text, seed=1)
    for _ in stream:
        pass
    assert plainly["words"] == plain(stream.words or ())
    assert "words" not in events(post(address, input=TEXT, seed=1, stream_format="sse"))[-1]
    batch = post(address, "/v1/audio/speech/batch", items=[{"input": "Hi."}], timestamps=True).json()
    assert [one["word"] for one in batch["results"][0]["words"]] == ["Hi."]


def test_a_search_tells_its_scores(address: str, tiny: Llasa) -> None:
    wanted = tiny.say(TEXT, seed=1, best_of=2)
    answer = post(address, input=TEXT, seed=1, best_of=2, response_format="wav")
    assert answer.content == audio.wav_bytes(wanted.samples, 16000)
    told = json.loads(answer.headers["x-llasa-search"])
    (chosen,) = [one for one in wanted.search.candidates if one.chosen]
    assert told["strategy"] == "best-of:2"
    assert told["chosen"][0]["number"] == chosen.number
    assert told["chosen"][0]["scores"]["content"] == pytest.approx(chosen.scores["content"], abs=1e-4)


def test_the_events_of_a_search_tell_its_progress_and_its_candidates(address: str) -> None:
    found = events(
        post(address, input=TEXT, seed=1, best_of=2, response_format="wav", stream_format="sse", candidates=True)
    )
    kinds = [event["type"] for event in found]
    assert kinds[-2:] == ["speech.audio.delta", "speech.audio.done"]
    assert set(kinds[:-2]) == {"speech.audio.progress"}
    candidates = found[-1]["candidates"]
    assert [one["number"] for one in candidates] == [0, 1]
    assert sum(one["chosen"] for one in candidates) == 1
    best = next(one for one in candidates if one["chosen"])
    assert soundfile.info(io.BytesIO(base64.b64decode(best["audio"]))).duration == pytest.approx(best["seconds"])


def test_words_that_the_model_cannot_read_are_told(address: str) -> None:
    body = {"input": f"{TEXT} \u4f60\u597d, 50%.", "seed": 1, "response_format": "pcm"}
    for more in ({}, {"best_of": 2}):
        told = unquote(post(address, **body, **more).headers["x-llasa-note"])
        assert "cannot read all of the text" in told
        assert "of \u4f60\u597d," in told
        done = events(post(address, **body, **more, stream_format="sse"))[-1]
        assert done["note"] == told
    (item,) = post(address, "/v1/audio/speech/batch", items=[body]).json()["results"]
    assert item["note"] == told
    assert "x-llasa-note" not in post(address, input=TEXT).headers


def test_a_batch_tells_of_each_item(address: str, tiny: Llasa) -> None:
    spoken = tiny.say(TEXT, seed=1).samples
    answer = post(
        address, "/v1/audio/speech/batch", response_format="wav", seed=1,
        items=[{"input": TEXT}, {"input": TEXT, "voice": "nobody"}, {"input": TEXT, "response_format": "flac"}],
    ).json()  # fmt: skip
    assert (answer["total"], answer["succeeded"], answer["failed"]) == (3, 2, 1)
    first, second, third = answer["results"]
    assert base64.b64decode(first["audio_data"]) == audio.wav_bytes(spoken, 16000)
    assert second["error"]["code"] == "voice_not_found"
    assert soundfile.info(io.BytesIO(base64.b64decode(third["audio_data"]))).frames == len(spoken)


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({}, 400, "input", "field required"),
        ({"input": ""}, 400, "input", "at least 1 character"),
        ({"input": "..."}, 400, None, "the text has no words"),
        ({"input": "a" * 5000}, 400, "input", "the text has 5,000 characters, and at most 4,096 are read"),
        ({"input": "a", "model": "gpt"}, 404, "model", "there is no model gpt"),
        ({"input": "a", "voice": "../alma"}, 400, "voice", "there is no voice called ../alma"),
        ({"input": "a", "voice": "/etc/x.safetensors"}, 400, "voice", "there is no voice called"),
        ({"input": "a", "response_format": "zip"}, 400, "response_format", "input should be 'mp3', 'opus'"),
        ({"input": "a", "speed": 5}, 400, "speed", "less than or equal to 4"),
        ({"input": "a", "seed": -1}, 400, "seed", "greater than or equal to 0"),
        ({"input": "a", "temperature": 9}, 400, "temperature", "less than or equal to 2"),
        ({"input": "a", "timestamps": True}, 400, "timestamps", "set stream_format to sse"),
        ({"input": "a", "best_of": 100}, 400, "best_of", "at most 16 are made here"),
        ({"input": "a", "best_of": 2, "search": "beam:2x2"}, 400, None, "two searches"),
        ({"input": "a", "search": "guess"}, 400, None, "unknown search 'guess'"),
        ({"input": "a", "verify": "whisper"}, 400, "verify", "whisper cannot verify here"),
        ({"input": "a", "verify": "ecapa:/etc"}, 400, "verify", "cannot verify here"),
        ({"input": "a", "ref_audio": "http://127.0.0.1/x.wav"}, 400, "ref_audio", "nothing is fetched"),
        ({"input": "a", "ref_audio": "data:audio/wav;base64,@"}, 400, "ref_audio", "not base64"),
        ({"input": "a", "ref_audio": "data:audio/wav;base64,AAAA"}, 400, "ref_audio", "cannot be read as audio"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(
    address: str, body: dict[str, Any], status: int, param: str | None, message: str
) -> None:
    answer = post(address, **body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


def test_instructions_are_ignored_with_a_warning(address: str) -> None:
    answer = post(address, input="Hi.", instructions="Whisper.", response_format="pcm")
    assert "follows no instructions" in answer.headers["warning"]


def test_elevenlabs_routes(address: str, spoken: np.ndarray) -> None:
    for path in ("", "/stream"):
        answer = post(address, f"/v1/text-to-speech/alma{path}?output_format=pcm_16000", text=TEXT, seed=1)
        assert answer.content == audio.pcm16(spoken)
    mp3 = post(address, "/v1/text-to-speech/alma", text=TEXT, model_id="eleven_turbo_v2")
    assert mp3.headers["content-type"] == "audio/mpeg"
    assert soundfile.info(io.BytesIO(mp3.content)).duration > 0.5
    for path, message in (
        ("nobody", "no voice called nobody"),
        ("alma?output_format=ulaw_8000", "cannot make ulaw_8000"),
    ):
        wrong = post(address, f"/v1/text-to-speech/{path}", text=TEXT)
        assert wrong.status_code == 400
        assert message in wrong.json()["detail"]["message"]


def test_health_and_metrics(address: str) -> None:
    assert requests.get(f"{address}/health").json()["status"] == "ok"
    post(address, input="Hi.", response_format="pcm")
    told = requests.get(f"{address}/metrics").text
    assert 'llasa_requests_total{route="/v1/audio/speech",status="200"}' in told
    assert "llasa_first_sound_seconds_count" in told
    assert "llasa_streams_running" in told
    assert "Hi." not in told
    assert requests.get(f"{address}/docs").status_code == 404
