"""emotion2vec through funasr, on a tiny random one in the layout of emotion2vec/emotion2vec_plus_large.

funasr is an extra of its own: without it these tests are skipped, but for the message that says so.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from llasa.errors import LlasaError
from llasa.verifiers import Batch
from llasa.verifiers.emotion import LABELS, load

RATE = 16000
TOKENS = ["生气/angry", "厌恶/disgusted", "恐惧/fearful", "开心/happy", "中立/neutral", "其他/other", "难过/sad",
          "吃惊/surprised", "<unk>"]  # fmt: skip
DROPS = {"start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0}
AUDIO = DROPS | {
    "type": "AUDIO", "prenet_depth": 1, "prenet_layerdrop": 0.0, "prenet_dropout": 0.0, "num_extra_tokens": 2,
    "init_extra_token_zero": True, "use_alibi_encoder": True, "alibi_scale": 1.0, "learned_alibi": False,
    "alibi_max_pos": None, "learned_alibi_scale": True, "learned_alibi_scale_per_head": True,
    "learned_alibi_scale_per_layer": False, "num_alibi_heads": 2, "model_depth": 1, "extractor_mode": "layer_norm",
    "feature_encoder_spec": "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2", "conv_pos_width": 15,
    "conv_pos_groups": 4, "conv_pos_depth": 2, "conv_pos_pre_ln": False, "decoder": None, "local_grad_mult": 1.0,
    "ema_local_encoder": False, "mask_prob": 0.5, "mask_length": 5,
}  # fmt: skip
MODEL = DROPS | {
    "loss_beta": 0.0, "loss_scale": None, "depth": 1, "num_heads": 2, "norm_eps": 1e-5, "norm_affine": True,
    "encoder_dropout": 0.1, "post_mlp_drop": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.0,
    "dropout_input": 0.0, "layerdrop": 0.0, "embed_dim": 32, "mlp_ratio": 2.0, "layer_norm_first": False,
    "average_top_k_layers": 1, "end_of_block_targets": False, "clone_batch": 1, "normalize": True,
    "modalities": {"audio": AUDIO},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("funasr")
    from funasr.models.emotion2vec.model import Emotion2vec

    torch.manual_seed(0)
    model = Emotion2vec(model_conf=MODEL, vocab_size=len(TOKENS))
    with torch.no_grad():  # by default random weights make all embeddings the same
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    (tmp_path / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    config = {"model": "Emotion2vec", "model_conf": MODEL, "tokenizer": "CharTokenizer",
              "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True}}  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    files = {"init_param": "model.pt", "tokenizer_conf": {"token_list": "tokens.txt"}, "config": "config.yaml"}
    layout = {"framework": "pytorch", "task": "emotion-recognition", "model": {"type": "funasr"},
              "file_path_metas": files}  # fmt: skip
    (tmp_path / "configuration.json").write_text(json.dumps(layout))
    return tmp_path


@pytest.fixture
def sounds(voiced: np.ndarray) -> list[np.ndarray]:
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    return [voiced, noise, voiced[:RATE], voiced[RATE : 2 * RATE]]


def test_it_is_what_the_model_says(folder: Path, sounds: list[np.ndarray]):
    from funasr.models.emotion2vec.model import Emotion2vec

    model = Emotion2vec(model_conf=MODEL, vocab_size=len(TOKENS)).eval()
    model.load_state_dict(torch.load(folder / "model.pt"))
    with torch.no_grad():
        means = [
            model.extract_features(torch.nn.functional.layer_norm(torch.from_numpy(s), s.shape)[None])["x"].mean(1)[0]
            for s in sounds
        ]
        happy = [model.proj(mean).softmax(0)[TOKENS.index("开心/happy")].item() for mean in means]
    alike = [torch.cosine_similarity(mean, means[0], 0).clip(0, 1).item() for mean in means]

    reference = load(str(folder))
    assert (reference.name, reference.process, reference.needs_reference) == (f"emotion:{folder}", True, True)
    scores = reference.score(Batch([""] * 4, sounds, [sounds[0]] * 4))
    np.testing.assert_allclose(scores, alike, atol=1e-5)
    assert scores[0] == pytest.approx(1)
    assert np.ptp(scores) > 1e-3

    named = load(f"happy:{folder}")
    assert (named.name, named.process, named.needs_reference) == (f"emotion:happy:{folder}", True, False)
    scores = named.score(Batch([""] * 4, sounds, [None] * 4))
    np.testing.assert_allclose(scores, happy, atol=1e-5)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_array_equal(named.score(Batch([""] * 4, sounds, [None] * 4)), scores)
    assert [named.score(Batch([""], [sound], [None]))[0] for sound in sounds] == list(scores)


def test_a_folder_of_letters_alone_is_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(folder, folder / "mymodel")
    monkeypatch.chdir(folder)
    assert load("mymodel").name == "emotion:mymodel"


def test_the_process_is_left_as_it_was(folder: Path, capfd: pytest.CaptureFixture[str]):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    load(f"sad:{folder}")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr().out == ""


def test_nothing_scores_nothing(folder: Path, voiced: np.ndarray):
    nothing = [np.zeros(0, np.float32), voiced[:320], np.zeros(RATE, np.float32)]
    for choice in (str(folder), f"happy:{folder}"):
        np.testing.assert_array_equal(load(choice).score(Batch([""] * 3, nothing, [voiced] * 3)), [0, 0, 0])


def test_what_cannot_be_had_is_said(folder: Path, lm_folder: Path):
    with pytest.raises(LlasaError, match=f"there is no emotion called glad: pass one of {', '.join(LABELS)}"):
        load("glad")
    with pytest.raises(LlasaError, match="there is no folder no/such/folder"):
        load("no/such/folder")
    with pytest.raises(LlasaError, match=r"lacks config\.yaml or model\.pt"):
        load(f"happy:{lm_folder}")
    (folder / "tokens.txt").write_text("\n".join([*"abcdefgh", "<unk>"]) + "\n")
    with pytest.raises(LlasaError, match="has no label happy"):
        load(f"happy:{folder}")
    torch.save({"other": torch.zeros(1)}, folder / "model.pt")
    with pytest.raises(LlasaError, match=r"model\.pt lacks weights of an emotion2vec"):
        load(str(folder))
    (folder / "model.pt").write_bytes(b"broken")
    with pytest.raises(LlasaError, match="cannot be loaded"):
        load(str(folder))


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"funasr is not installed.*pip install 'llasa\[emotion\]'"):
        load("happy")
