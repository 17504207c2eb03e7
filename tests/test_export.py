"""An exported model is whole, loads in plain transformers, and goes to a hub."""

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from nested import lm_settings
from safetensors.torch import load_file
from small_models import make_codec_folder, make_lm_folder
from transformers import AutoModelForCausalLM, AutoTokenizer, Xcodec2Model

from llasa.codec import convert
from llasa.errors import LlasaError
from llasa.export import check_hub, export, push
from llasa.measure.listeners import whisper
from llasa.measure.metrics import word_errors
from llasa.models.folder import fingerprint
from llasa.train.lm.stage import make_model, save_model
from llasa.train.settings import changed
from llasa.tts import Llasa
from llasa.voice import Voice

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lm(lm_folder: Path, tmp_path: Path) -> Path:
    """A model with a voice, whose codec lies where its config says by a relative path."""
    shutil.copytree(lm_folder.parent / "codec", tmp_path / "codec")
    folder = shutil.copytree(lm_folder, tmp_path / "lm")
    mark = fingerprint(tmp_path / "codec")
    Voice("ann", "Words.", np.arange(50, dtype=np.uint16), mark).save(folder / "voices" / "ann.safetensors")
    return folder


def test_the_folder_loads_in_plain_transformers_and_says_the_same(lm: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    export(str(lm), out, "apache-2.0")
    before, after = (Llasa.load(folder).say("hello there", seed=3, max_seconds=1) for folder in (lm, out))
    np.testing.assert_array_equal(before.samples, after.samples)
    assert list(Llasa.load(out).voices()) == ["ann"]
    shutil.rmtree(tmp_path / "codec")  # nothing of it is needed any longer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ids = tokenizer("hello", return_tensors="pt").input_ids
    torch.testing.assert_close(model(ids).logits, AutoModelForCausalLM.from_pretrained(lm)(ids).logits)
    codec, report = Xcodec2Model.from_pretrained(out, subfolder="codec", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert codec.decode(torch.arange(20)[None, None]).audio_values.shape[-1] > 0


def test_what_training_leaves_is_exported(codec_folder: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = lm_settings(codec=str(codec_folder), model=sizes | {"num_key_value_heads": 2})
    model, vocabulary = make_model(settings)
    save_model(model, vocabulary, settings, tmp_path / "model")
    export(str(tmp_path / "model"), tmp_path / "out", "mit")
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert (tmp_path / "out" / "codec" / "model.safetensors").exists()

    save_model(model, vocabulary, changed(settings, {"init": "HKUSTAudio/Llasa-1B"}), tmp_path / "tuned")
    export(str(tmp_path / "tuned"), tmp_path / "published")
    data = ModelCard.load(tmp_path / "published" / "README.md").data
    assert (data.license, data.base_model) == ("cc-by-nc-4.0", "HKUSTAudio/Llasa-1B")


def test_a_codec_in_upstreams_layout_is_exported_in_transformers(tmp_path: Path) -> None:
    make_codec_folder(tmp_path / "codec")
    convert.convert(tmp_path / "codec", tmp_path / "original", "original")
    lm = make_lm_folder(tmp_path / "lm", "../original")
    export(str(lm), tmp_path / "out", "mit")
    one, other = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "codec", tmp_path / "out" / "codec")
    )
    assert all(torch.equal(tensor, one[name]) for name, tensor in other.items())
    assert one.keys() == other.keys()


def test_a_codec_on_the_hub_stays_there(lm: Path, tmp_path: Path) -> None:
    config = json.loads((lm / "config.json").read_text())
    del config["codec"]
    (lm / "config.json").write_text(json.dumps(config))
    export(str(lm), tmp_path / "out", "mit")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["codec"] == "HKUSTAudio/xcodec2-hf"
    assert not (tmp_path / "out" / "codec").exists()


def test_the_card_says_what_was_said_or_what_the_models_own_says(lm: Path, tmp_path: Path) -> None:
    export(str(lm), tmp_path / "a", "cc-by-4.0", ["en", "de"], "me/base")
    card = ModelCard.load(tmp_path / "a" / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["language"] == ["en", "de"]
    assert data["base_model"] == "me/base"
    assert data["pipeline_tag"] == "text-to-speech"
    assert "llasa" in data["tags"]
    assert "Preset voices: ann." in card.text
    (tmp_path / "a" / "README.md").write_text(str(card).replace("# A Llasa voice", "# Ann"))
    export(str(tmp_path / "a"), tmp_path / "b", languages=["fr"])
    card = ModelCard.load(tmp_path / "b" / "README.md")
    assert card.data.to_dict() == data | {"language": ["fr"]}
    assert card.text.lstrip().startswith("# Ann")


def test_what_was_tuned_from_the_official_models_keeps_their_licence(lm: Path, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=r"HKUSTAudio/Llasa-1B are licensed CC BY-NC 4.0.*pass --license cc-by-nc-4"):
        export(str(lm), tmp_path / "a", "mit", base="HKUSTAudio/Llasa-1B")
    export(str(lm), tmp_path / "a", base="HKUSTAudio/Llasa-1B")
    assert ModelCard.load(tmp_path / "a" / "README.md").data.license == "cc-by-nc-4.0"


def test_what_cannot_be_exported(lm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LlasaError, match=r"the licence of .* is not known: pass --license"):
        export(str(lm), out)
    with pytest.raises(LlasaError, match="exists already: name a new folder"):
        export(str(lm), tmp_path / "codec", "mit")
    with pytest.raises(LlasaError, match="not 'llama'"):
        export(str(tmp_path / "codec"), out, "mit")
    make_lm_folder(tmp_path / "other", "../codec", codebook_size=32)
    with pytest.raises(LlasaError, match=r"has 32 speech tokens but its codec .* has 64"):
        export(str(tmp_path / "other"), out, "mit")
    (lm / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(LlasaError, match=r"README.md is not a model card"):
        export(str(lm), out, "mit")
    (lm / "README.md").unlink()
    (lm / "adapter_config.json").write_text("{}")
    with pytest.raises(LlasaError, match=r"is a LoRA: .*llasa merge"):
        export(str(lm), out, "mit")
    (lm / "adapter_config.json").unlink()
    (lm / "model.safetensors").rename(lm / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (lm / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(LlasaError, match=r"lacks model-00002-of-00002.safetensors"):
        export(str(lm), out, "mit")
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload needs: it keeps what is committed, and asks for nothing in large-file storage."""

    stored: dict[str, bytes]
    created: dict[str, Any]

    def do_GET(self) -> None:
        self.answer({"name": "me", "type": "user", "auth": {}})

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        where = f"http://{self.headers['Host']}/me/voice"
        if self.path.endswith("/repos/create"):
            type(self).created = json.loads(body)
            self.answer({"url": where})
        elif "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            self.answer({"files": [file | {"shouldIgnore": False} for file in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.stored[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{where}/commit/1", "commitOid": "1"})
        else:
            self.answer({})

    def answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The hub's own client, with a hub on this machine and a token; nothing of this machine's user."""
    Hub.stored, Hub.created = {}, {}
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", f"http://127.0.0.1:{server.server_port}")
        yield huggingface_hub.hf_api.api
        server.shutdown()


def test_a_push_uploads_every_file(hub: Any, lm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(str(lm), out, "mit")
    check_hub("me/voice")
    assert push(out, "me/voice").endswith("/me/voice")
    assert Hub.created["name"] == "voice"
    assert Hub.created.get("private") is True or Hub.created.get("visibility") == "private"
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert {"README.md", "config.json", "codec/model.safetensors", "voices/ann.safetensors"} < files.keys()
    assert Hub.stored == {name: path.read_bytes() for name, path in files.items()}


def test_a_push_that_cannot_be_says_why(hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="pass --push USER/voice"):
        check_hub("voice")
    with pytest.raises(LlasaError, match="me//voice cannot name a repository"):
        check_hub("me//voice")
    monkeypatch.setattr(hub, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(LlasaError, match=r"the hub cannot be reached \(.*refused\): check the network"):
        check_hub("me/voice")
    with pytest.raises(LlasaError, match=r"is written but could not be pushed to me/voice .*hf upload me/voice"):
        push(tmp_path, "me/voice")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LlasaError, match="nobody is logged in to the hub here"):
        check_hub("me/voice")


def test_the_script_in_plain_transformers_can_be_understood(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/export.md").read_text(), re.S | re.M)
    script = next(block for block in blocks if "AutoModelForCausalLM" in block)
    assert "llasa" not in script
    export("tiny", tmp_path / "my-voice")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    samples, rate = soundfile.read(tmp_path / "plain.wav", dtype="float32")
    assert rate == 16000
    errors, _ = word_errors("The quick brown fox jumps over the lazy dog.", whisper(samples))
    assert errors <= 2  # none in 8 of 8; sampling differs among processors
