"""Paraformer through funasr, on a tiny random one in the layout of the real one; skipped without funasr."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from llasa.errors import LlasaError
from llasa.verifiers.paraformer import Paraformer

TOKENS = ["<blank>", "<s>", "</s>", *"天地玄黄宇宙洪荒", "<unk>"]
SIZES = {"output_size": 32, "attention_heads": 2, "linear_units": 48, "num_blocks": 2, "kernel_size": 3}
CONFIG = {
    "model": "Paraformer",
    "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.1, "length_normalized_loss": True, "predictor_weight": 1.0},
    "encoder": "SANMEncoder",
    "encoder_conf": SIZES | {"dropout_rate": 0.0, "input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder",
                             "normalize_before": True, "sanm_shfit": 0, "selfattention_layer_type": "sanm"},
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {"attention_heads": 2, "linear_units": 48, "num_blocks": 1, "att_layer_num": 1, "kernel_size": 3,
                     "dropout_rate": 0.0, "sanm_shfit": 0},
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": 32, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    "frontend": "WavFrontend",
    "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10,
                      "lfr_m": 7, "lfr_n": 6},
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("funasr")
    from funasr.models.paraformer.model import Paraformer as Network

    torch.manual_seed(0)
    (tmp_path / "tokens.json").write_text(json.dumps(TOKENS))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    files = {"init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": {"token_list": "tokens.json"}}
    layout = {"framework": "pytorch", "task": "auto-speech-recognition", "model": {"type": "funasr"},
              "file_path_metas": files}  # fmt: skip
    (tmp_path / "configuration.json").write_text(json.dumps(layout))
    parts = {key: value for key, value in CONFIG.items() if "frontend" not in key and "tokenizer" not in key}
    model = Network(vocab_size=len(TOKENS), input_size=560, **parts, **CONFIG["model_conf"])  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    return tmp_path


def test_it_writes_characters(folder: Path, voiced: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    recogniser = Paraformer(str(folder))
    assert torch.equal(torch.get_rng_state(), state)
    written = recogniser.transcribe(voiced)
    assert written
    assert set(written) <= set("天地玄黄宇宙洪荒") | {" "}
    assert recogniser.transcribe(voiced) == written
    assert recogniser.transcribe(np.zeros(16000, np.float32)) == ""
    assert capfd.readouterr().out == ""


def test_what_cannot_be_had_is_said(folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"broken")
    with pytest.raises(LlasaError, match="cannot be loaded"):
        Paraformer(str(folder))


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"funasr is not installed.*pip install 'llasa\[emotion\]'"):
        Paraformer()
