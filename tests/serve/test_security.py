"""Who may ask: the key, the origin, the size; and that an error tells nothing of the server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from served import served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from llasa.serve.app import Settings
from llasa.serve.service import Service
from llasa.tts import Llasa

KEY = "a secret"
HELLO = {"input": "Hi.", "response_format": "pcm"}


@pytest.fixture(scope="module")
def locked(small: Llasa, home: Path) -> Iterator[str]:
    with served(small, Settings(key=KEY, origins=("https://friend.example",))) as found:
        yield found


def test_a_key_is_needed(locked: str) -> None:
    for path in ("/v1/models", "/v1/audio/voices", "/metrics", "/openapi.json"):
        answer = requests.get(locked + path)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_key"
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer {KEY}"}, {"xi-api-key": KEY}):
            assert requests.get(locked + path, headers=headers).status_code == 200
    for wrong in ("", "a", f"{KEY}x", "ä" * 40):
        sent = {"Authorization": f"Bearer {wrong}".encode()}
        assert requests.post(f"{locked}/v1/audio/speech", json=HELLO, headers=sent).status_code == 401
    for path in ("/", "/health"):
        assert requests.get(locked + path).status_code == 200


def test_pages_elsewhere_may_not_call(address: str, locked: str) -> None:
    def status(where: str, origin: str, **headers: str) -> int:
        headers = {"Origin": origin, **headers}
        return requests.post(f"{where}/v1/audio/speech", json={"input": ""}, headers=headers).status_code

    assert status(address, "https://enemy.example") == 403
    assert status(address, "null") == 403
    assert status(address, address) == 400
    assert status(locked, "https://enemy.example", Authorization=f"Bearer {KEY}") == 403
    assert status(locked, "https://friend.example", Authorization=f"Bearer {KEY}") == 400
    asked = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    allowed = requests.options(f"{locked}/v1/audio/speech", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://friend.example"
    assert "access-control-allow-origin" not in requests.get(f"{address}/v1/models", headers=asked).headers


def test_a_websocket_needs_both(address: str, locked: str) -> None:
    place = "/v1/audio/speech/stream"
    for where, headers in ((locked, {}), (address, {"Origin": "https://enemy.example"})):
        with (
            pytest.raises(InvalidStatus, match="403"),
            connect(where.replace("http", "ws") + place, additional_headers=headers),
        ):
            pass


def test_a_request_is_bounded(address: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"input": "'
        for _ in range(50):
            yield b"a" * (1 << 20)

    large = requests.post(f"{address}/v1/audio/speech", data=b"a" * (41 << 20))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
    assert requests.post(f"{address}/v1/audio/speech", data=endless()).status_code == 413


def test_a_fault_of_the_server_tells_nothing(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/home/somebody: secret")

    monkeypatch.setattr(Service, "prepare", fail)
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = requests.post(f"{locked}/v1/audio/speech", json=HELLO, headers=headers)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    answer = requests.post(f"{locked}/v1/audio/speech", json=HELLO | {"stream_format": "sse"}, headers=headers)
    assert json.loads(answer.text.removeprefix("data: "))["error"]["code"] == "server_error"
