"""`llasa serve` as a process: it starts without arguments, tells its address, ends on a signal, and survives a kill."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from commands.runner import Run, fails

from llasa.voice import Voice


@contextmanager
def serving(home: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server's process and its address."""
    command = [sys.executable, "-m", "llasa", "serve", "--port", "0", *arguments]
    environment = os.environ | {"LLASA_HOME": str(home)} | environment
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield process, found[0].rstrip("/")
    finally:
        process.kill()
        process.wait()


def test_it_starts_tells_its_address_and_ends(tmp_path: Path) -> None:
    with serving(tmp_path, LLASA_API_KEY="from the environment") as (process, address):
        for _ in range(100):
            try:
                page = requests.get(address)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        assert "<title>Llasa</title>" in page.text
        assert requests.get(f"{address}/v1/models").status_code == 401
        headers = {"Authorization": "Bearer from the environment"}
        body = {"input": "Some secret words.", "response_format": "pcm"}
        assert len(requests.post(f"{address}/v1/audio/speech", json=body, headers=headers).content) > 16000
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, 143, -15)
        assert "secret" not in process.stderr.read()


def test_a_kill_leaves_voices_whole(tmp_path: Path, reference: Path) -> None:
    """Killed while voices are uploaded, a server leaves each voice whole or not there at all."""
    with serving(tmp_path) as (process, address):
        until(lambda: requests.get(f"{address}/health").ok)
        code = (
            "import sys, requests; requests.post(sys.argv[1], files={'audio_sample': open(sys.argv[2], 'rb')}, "
            "data={'name': sys.argv[3], 'consent': 'true', 'ref_text': 'aa'})"
        )
        command = [sys.executable, "-c", code, f"{address}/v1/audio/voices", str(reference)]
        clients = [subprocess.Popen([*command, f"voice {i}"], stderr=subprocess.DEVNULL) for i in range(6)]
        time.sleep(1.5)
        process.kill()
        for client in clients:
            client.wait()
    for path in tmp_path.rglob("*.safetensors"):
        assert len(Voice.load(path).codes) > 10
    with serving(tmp_path) as (_, address):
        until(lambda: requests.get(f"{address}/health").ok)
        listed = requests.get(f"{address}/v1/audio/voices").json()["voices"]
    assert len(listed) == 7 + len(list(tmp_path.rglob("*.safetensors")))


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
    fails(run("serve", "--api-key", " "), "the API key is empty")
    fails(run("serve", "--port", 0, "--model", "/nowhere"), "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fails(run("serve"), "fastapi is not installed, which this needs: pip install 'llasa[serve]'")
