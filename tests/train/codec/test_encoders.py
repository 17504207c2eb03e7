"""Pretrained speech models as a codec's training listens through them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoders import make_listener_folder, make_semantic_folder
from transformers import Wav2Vec2BertModel, Wav2Vec2ForPreTraining

from llasa.errors import LlasaError
from llasa.models.defaults import half_precision
from llasa.train.codec.encoders import Listener, load_encoder


def test_the_first_layers_put_out_what_they_do_in_the_whole(tmp_path: Path) -> None:
    folder = make_semantic_folder(tmp_path / "w2v-bert")
    features = torch.randn(1, 30, 160)
    encoder = load_encoder(str(folder), 2, "wav2vec2-bert")
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    whole = Wav2Vec2BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = encoder(features).last_hidden_state
        assert torch.allclose(ours, whole(features, output_hidden_states=True).hidden_states[2], atol=1e-6)


@pytest.mark.parametrize("last", [2, 4])
def test_the_perceptual_loss_is_the_mean_distance_of_layers(tmp_path: Path, voiced: np.ndarray, last: int) -> None:
    folder = make_listener_folder(tmp_path / "xlsr", old=False)
    real = torch.from_numpy(voiced[:16000])[None]
    made = (real + 0.01 * torch.randn_like(real)).requires_grad_()
    listener = Listener(str(folder), 1, last, torch.device("cpu"))
    loss = listener(made, real)
    model = Wav2Vec2ForPreTraining.from_pretrained(folder).wav2vec2.eval()
    with torch.no_grad(), half_precision("cpu"):
        states = [model(wave, output_hidden_states=True).hidden_states for wave in (made, real)]
    wanted = [F.mse_loss(a.float(), b.float()) for a, b in list(zip(*states, strict=True))[1 : last + 1]]
    assert float(loss.detach()) == pytest.approx(float(torch.stack(wanted).mean()), rel=1e-3)
    loss.backward()
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0
    assert float(listener(real, real)) == 0


def test_old_weights_are_the_same_model(tmp_path: Path, voiced: np.ndarray) -> None:
    wave = torch.from_numpy(voiced[:8000])[None]
    old, new = (load_encoder(str(make_listener_folder(tmp_path / str(o), old=o)), 3) for o in (True, False))
    with torch.no_grad():
        assert torch.equal(old(wave).last_hidden_state, new(wave).last_hidden_state)


def test_what_cannot_be_listened_with_says_so(tmp_path: Path) -> None:
    folder = make_semantic_folder(tmp_path / "w2v-bert")
    with pytest.raises(LlasaError, match="there is no folder nowhere"):
        load_encoder("nowhere", 1)
    with pytest.raises(LlasaError, match="'wav2vec2-bert', not 'wavlm'"):
        load_encoder(str(folder), 1, "wavlm")
    with pytest.raises(LlasaError, match="has 4 layers and the recipe asks for 5"):
        load_encoder(str(folder), 5)
    listener = make_listener_folder(tmp_path / "xlsr")
    weights = torch.load(listener / "pytorch_model.bin")
    torch.save({k: v for k, v in weights.items() if "layers.1." not in k}, listener / "pytorch_model.bin")
    with pytest.raises(LlasaError, match=r"lacks .*layers\.1"):
        load_encoder(str(listener), 3)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(LlasaError, match="cannot be loaded"):
        load_encoder(str(folder), 2)
