"""`llasa serve` as a process: it starts without arguments, tells its address, ends on a signal, and survives a kill."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from commands.runner import Run, fails
from warm import kill

from llasa.voice import Voice


@contextmanager
def serving(
    python: list[str], home: Path, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server's process and its address."""
    command = [*python, "-m", "llasa", "serve", "--port", "0", *arguments]
    environment = os.environ | {"LLASA_HOME": str(home)} | environment
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield process, found[0].rstrip("/")
    finally:
        kill(process)


def test_it_starts_tells_its_address_and_ends(tmp_path: Path) -> None:
    python = [sys.executable]  # as a user starts it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(python, tmp_path, "--wyoming", str(port), LLASA_API_KEY="from the environment") as (process, address):
        for _ in range(100):
            try:
                page = requests.get(address)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        assert "<title>Llasa</title>" in page.text
        assert requests.get(f"{address}/v1/models").status_code == 401
        socket.create_connection(("127.0.0.1", port)).close()  # although it has its own way to handle signals
        headers = {"Authorization": "Bearer from the environment"}
        body = {"input": "Some secret words.", "response_format": "pcm"}
        assert len(requests.post(f"{address}/v1/audio/speech", json=body, headers=headers).content) > 16000
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, 143, -15)
        assert "secret" not in process.stderr.read()


def test_a_kill_leaves_voices_whole(python: list[str], tmp_path: Path) -> None:
    """Killed amid uploads and speeches, a server keeps what it has answered, and each other voice whole or not."""
    said = "The words that are spoken in the recording."

    def upload(address: str, number: int, sound: bytes) -> int:
        fields, files = {"name": f"voice {number}", "consent": "true", "ref_text": said}, {"audio_sample": sound}
        return requests.post(f"{address}/v1/audio/voices", files=files, data=fields, timeout=60).status_code

    def speak(address: str, text: str) -> bytes:
        body = {"input": text, "response_format": "wav", "seed": 1}
        return requests.post(f"{address}/v1/audio/speech", json=body, timeout=60).content

    with serving(python, tmp_path) as (process, address), ThreadPoolExecutor(9) as pool:
        until(lambda: requests.get(f"{address}/health").ok)
        sound = speak(address, said)
        speeches = [pool.submit(speak, address, "One two three four five six seven. " * 40) for _ in range(3)]
        uploads = {pool.submit(upload, address, number, sound): number for number in range(6)}
        stored = next(as_completed(uploads))
        kill(process)
        assert stored.result() == 201
        for speech in speeches:
            assert isinstance(speech.exception(), requests.RequestException)
    own = {path.stem: Voice.load(path) for path in (tmp_path / "voices").glob("*") if not path.name.startswith(".")}
    assert f"voice {uploads[stored]}" in own
    assert all(len(voice.codes) > 10 and voice.consent for voice in own.values())
    with serving(python, tmp_path) as (_, address):
        until(lambda: requests.get(f"{address}/health").ok)
        listed = requests.get(f"{address}/v1/audio/voices").json()["voices"]
        assert {voice["id"] for voice in listed if voice["kind"] == "uploaded"} == own.keys()
        for number in range(6):  # whatever was not stored can be stored now
            assert upload(address, number, sound) == (409 if f"voice {number}" in own else 201)


def test_a_kill_at_any_step_of_storing_leaves_a_voice_whole_or_not(python: list[str], tmp_path: Path) -> None:
    code = """
import os, sys, pathlib, numpy as np
from llasa.serve.voice_routes import _store
from llasa.voice import Voice

left = 0

def dying(event, arguments):
    global left
    if event in ("open", "os.chmod", "os.rename", "os.link", "os.remove") and "voices" in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)

sys.addaudithook(dying)
voice, step = Voice("a", "b c", np.arange(40, dtype=np.uint16), consent=True), 1
while True:
    if not (child := os.fork()):
        left = step
        _store(voice, pathlib.Path(f"voices/{step}.safetensors"))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    step += 1
print(step)
"""
    done = subprocess.run([*python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = {path.stem for path in (tmp_path / "voices").glob("*") if not path.name.startswith(".")}
    steps = int(done.stdout)
    assert steps > 6
    assert found == {str(steps - 1), str(steps)}  # killed before the last step, and not at all
    for name in found:
        assert Voice.load(tmp_path / f"voices/{name}.safetensors").consent


def until(condition: object) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_what_is_wrong_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(run("serve", "--host", "256.1.1.1"), "cannot listen on 256.1.1.1 port 8000")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        fails(
            run("serve", "--port", 0, "--wyoming", number),
            f"port {number}: address already in use: choose another --wy",
        )
    fails(run("serve", "--api-key", " "), "the API key is empty")
    fails(run("serve", "--port", 0, "--model", "/nowhere"), "/nowhere")
    fails(run("serve", "--port", 0, "--backend", "none"), "unknown backend none: use torch, llamacpp or vllm")
    fails(run("serve", "--port", 0, "--ray", "--backend", "none"), "unknown backend none: use torch, llamacpp or vllm")
    fails(run("serve", "--port", 0, "--ray", "--model", "/nowhere"), "/nowhere")
    fails(run("serve", "--port", 0, "--ray", "--wyoming", 10200), "--wyoming does not work with --ray")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fails(run("serve"), "fastapi is not installed, which this needs: pip install 'llasa[serve]'")
