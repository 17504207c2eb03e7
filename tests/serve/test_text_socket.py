"""The WebSocket: sentences are spoken while the text comes; what is wrong is told; a client may leave."""

import json
import time
from typing import Any

import numpy as np
import pytest
import requests
from websockets.sync.client import ClientConnection, connect

from llasa import audio
from llasa.serve.problems import Problem
from llasa.serve.text_socket import Cutter
from llasa.tts import Llasa

PIECES = ["Good morning to all of", " you. It is la", "te now. Nobody in the", " house has said a word. Yes", "."]


def test_sentences_are_cut_as_soon_as_they_are_whole() -> None:
    cutter = Cutter(100)
    assert [cutter.push(piece) for piece in PIECES] == [
        [], ["Good morning to all of you."], [], ["It is late now. Nobody in the house has said a word."], []
    ]  # fmt: skip
    assert cutter.finish() == ["Yes."]
    assert cutter.finish() == []


def test_words_stay_apart_and_whole() -> None:
    text = "One two three four five six seven. Dr. Smith paid $3.50 for it, he said! And then? Then nothing at all."
    for size in (1, 3, 10):
        cutter, found = Cutter(200), []
        for start in range(0, len(text), size):
            found += cutter.push(text[start : start + size])
        assert " ".join(found + cutter.finish()) == text


def test_a_sentence_without_an_end_is_refused() -> None:
    with pytest.raises(Problem, match="a sentence has more than 50 characters"):
        Cutter(50).push("word " * 20)


def talk(address: str) -> ClientConnection:
    return connect(address.replace("http", "ws") + "/v1/audio/speech/stream", open_timeout=30)


def send(socket: ClientConnection, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def test_a_reply_is_spoken_while_it_is_written(address: str, tiny: Llasa) -> None:
    with talk(address) as socket:
        send(socket, "session.config", voice="alma", response_format="wav", seed=3)
        send(socket, "input.text", text="Good morning to all of you. It")
        start = json.loads(socket.recv(timeout=60))  # although the text has not ended
        assert (start["type"], start["sentence_text"]) == ("audio.start", "Good morning to all of you.")
        assert (start["format"], start["sample_rate"], start["sentence_index"]) == ("wav", 16000, 0)
        send(socket, "input.text", text=" is late.")
        send(socket, "input.done")
        sounds, told = [b""], []
        for message in socket:
            if isinstance(message, bytes):
                sounds[-1] += message
                continue
            told.append(json.loads(message))
            if told[-1]["type"] == "audio.start":
                sounds.append(b"")
    assert [one["type"] for one in told] == ["audio.done", "audio.start", "audio.done", "session.done"]
    assert told[-1]["total_sentences"] == 2
    wanted = np.concatenate(list(tiny.stream("Good morning to all of you.", voice="alma", seed=3)))
    assert sounds[0][44:] == audio.pcm16(wanted)
    assert len(sounds[1]) > 8000


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"type": "input.text", "text": "Hi."}], "first message must be of the type session.config"),
        ([{"type": "session.config", "voice": 5}], "voice"),
        ([{"type": "session.config", "best_of": 2}], "a search cannot be streamed"),
        ([{"type": "session.config"}, {"type": "input.text"}], "a message must be input.text"),
        (["nonsense"], "a JSON object"),
    ],
)
def test_what_is_wrong_is_told(address: str, messages: list[Any], told: str) -> None:
    with talk(address) as socket:
        for message in messages:
            socket.send(message if isinstance(message, str) else json.dumps(message))
        error = json.loads(socket.recv(timeout=30))
    assert error["type"] == "error"
    assert told in error["error"]["message"]


def test_a_sentence_that_cannot_be_spoken_does_not_end_the_others(address: str) -> None:
    with talk(address) as socket:
        send(socket, "session.config", voice="nobody")
        send(socket, "input.text", text="Hello.")
        send(socket, "input.done")
        kinds = [json.loads(message)["type"] for message in socket if isinstance(message, str)]
    assert kinds == ["audio.start", "warning", "audio.done", "session.done"]


def test_what_cannot_be_read_is_told(address: str) -> None:
    with talk(address) as socket:
        send(socket, "session.config")
        send(socket, "input.text", text="Hello \u4f60\u597d.")
        send(socket, "input.done")
        done = [json.loads(message) for message in socket if isinstance(message, str)][1]
    assert "cannot read all of the text" in done["note"]


def test_whoever_leaves_is_read_to_no_more(address: str) -> None:
    with talk(address) as socket:
        send(socket, "session.config")
        send(socket, "input.text", text="One two three four five six seven eight nine ten. " * 8)
        while not isinstance(socket.recv(timeout=60), bytes):
            pass
    deadline = time.monotonic() + 20
    while requests.get(f"{address}/health").json()["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
