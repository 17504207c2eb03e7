"""Schemathesis sends what the OpenAPI document allows, and what it does not: nothing makes the server fail."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from served import served

from llasa.serve.app import Settings
from llasa.serve.service import Limits
from llasa.tts import Llasa

KEY = "fuzz"


@pytest.fixture(scope="module")
def fuzzed(small: Llasa, home: Path) -> Iterator[str]:
    """A server whose texts are short, so that each is spoken soon."""
    limits = Limits(characters=30, seconds=3.0, candidates=2, budget=0.5)
    with served(small, Settings(key=KEY, most=8, limits=limits)) as found:
        yield found


def test_nothing_that_is_sent_is_a_fault(fuzzed: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{fuzzed}/openapi.json"]
    command += ["-H", f"Authorization: Bearer {KEY}", "-c", "not_a_server_error", "--phases", "fuzzing"]
    command += ["--mode", "all", "-n", "12", "--seed", "1", "--request-timeout", "60", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "generated" in done.stdout
    document = requests.get(f"{fuzzed}/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
    assert {"/v1/audio/speech", "/v1/audio/speech/batch", "/v1/audio/voices", "/health"} <= document["paths"].keys()
