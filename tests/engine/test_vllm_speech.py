"""Models that are opened in vLLM one after another: they speak, stream and search as in torch."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from small_models import make_lm_folder

from llasa.engine import Sampling, open_backend
from llasa.errors import LlasaError
from llasa.tts import Llasa
from llasa.verifiers import Batch

pytest.importorskip("vllm", reason="vLLM is not installed: run make test-vllm")


@pytest.fixture(scope="module")
def folder(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose heads are as wide as vLLM wants them."""
    return make_lm_folder(tmp_path_factory.mktemp("lm") / "lm", codec_folder, num_attention_heads=2)


def test_weights_that_are_no_numbers(codec_folder: Path, tmp_path: Path) -> None:
    folder = make_lm_folder(tmp_path / "lm", codec_folder, num_attention_heads=2)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    broken = open_backend(folder, "vllm")
    with pytest.raises(LlasaError, match="the model's output is NaN"):
        broken.extend(broken.start([[3, 4, 5], [9]], sampling=Sampling()), 3)


class Longest:
    name, process, needs_text, needs_reference = "longest", True, False, False

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        return np.array([len(audio) / batch.rate for audio in batch.audios])


def test_speaking_streaming_and_searching(folder: Path) -> None:
    text = "Hello there. It is late now, and nobody in the house has said a word."
    ours, theirs = (Llasa.load(folder, "cpu", "float32", backend=name) for name in ("vllm", "torch"))
    wanted = theirs.say(text, seed=3)
    assert ours.say(text, seed=3).codes.tolist() == wanted.codes.tolist()
    assert sum(map(len, ours.stream(text, seed=3))) == sum(map(len, theirs.stream(text, seed=3)))
    for search in ("best-of:5", "beam:2x2/10", "mixed:2x2@0.2s+4"):
        found, wanted = (llasa.say("Hello there.", seed=1, search=search, verify=Longest()) for llasa in (ours, theirs))
        assert found.codes.tolist() == wanted.codes.tolist()


def test_the_embedded_voice_says_what_it_says_in_torch() -> None:
    ours, theirs = (Llasa.load("tiny", "cpu", "float32", backend=name) for name in ("vllm", "torch"))
    found, wanted = (llasa.say("It was late.", seed=5) for llasa in (ours, theirs))
    assert found.codes.tolist() == wanted.codes.tolist()
