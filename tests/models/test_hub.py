"""Fetching from the hub: its real client, in a process of its own, against a hub on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hub import Repository, of_folder, serve
from small_models import make_lm_folder

FIND = """
import json, sys
from llasa.errors import LlasaError
from llasa.models.hub import find_model
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = str(find_model(name))
    except LlasaError as error:
        found[name] = f"error: {error}"
print(json.dumps(found))
"""


def find(home: Path, endpoint: str, *names: str, **environment: str) -> tuple[dict[str, str], str]:
    """What `find_model` gives or says for each name, and what went to standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", FIND, *names], capture_output=True, text=True, env=settings, check=True
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lm_folder(tmp_path_factory.mktemp("hub") / "lm", "../codec")


def test_what_can_go_wrong_is_told_apart(tmp_path: Path, model: Path):
    whole = of_folder(model)
    card = b"---\nlanguage: en\nlicense: cc-by-nc-4.0\n---\n# A model\n"
    repositories = {
        "anna/whole": whole,
        "anna/tuned": Repository(whole.files | {"README.md": card}),
        "anna/gated": Repository(whole.files, gated=True),
        "anna/cut": Repository(whole.files, cut=("model.safetensors",)),
        "anna/old": Repository({"config.json": whole.files["config.json"], "pytorch_model.bin": b"..."}),
    }
    with serve(repositories) as endpoint:
        found, told = find(tmp_path, endpoint, *repositories, "anna/no-such", "HKUSTAudio/Llasa-0B")
    fetched = Path(found["anna/whole"])
    assert (fetched / "model.safetensors").read_bytes() == whole.files["model.safetensors"]
    assert "there is no anna/no-such on the hub: check the spelling; if it is private, log in" in found["anna/no-such"]
    assert "anna/gated is gated: accept its terms" in found["anna/gated"]
    assert "HF_TOKEN" in found["anna/gated"]
    assert "anna/cut could not be fetched from the hub" in found["anna/cut"]
    assert "try again, which continues the download" in found["anna/cut"]
    assert "only in the old pytorch_model.bin: convert them once with python -c" in found["anna/old"]
    assert not any("\n" in message for message in found.values())
    assert told.count("anna/tuned are licensed CC BY-NC 4.0") == 1
    assert told.count("HKUSTAudio/Llasa-0B are licensed CC BY-NC 4.0") == 1
    assert "anna/whole" not in told


def test_without_a_network(tmp_path: Path, model: Path):
    with serve({"anna/whole": of_folder(model)}) as endpoint:
        fetched, _ = find(tmp_path, endpoint, "anna/whole")
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        found, _ = find(tmp_path, nowhere, "anna/whole", "anna/other")
    assert found["anna/whole"] == fetched["anna/whole"]  # what was fetched once is there
    assert "anna/other is not on this machine yet, and the hub cannot be reached" in found["anna/other"]
    offline, _ = find(tmp_path, nowhere, "anna/other", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in offline["anna/other"]
