"""Tiny random models of speech understanding in the layouts of the real ones: Whisper, WavLM, emotion2vec."""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMForXVector,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

MARKS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|ja|>", "<|zh|>", "<|translate|>", "<|transcribe|>",
         "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
HIDDEN, INNER, CONVS, CHANNELS, LAST, SIZE = 32, 48, 16, 16, 24, 8
EMOTIONS = ["生气/angry", "厌恶/disgusted", "恐惧/fearful", "开心/happy", "中立/neutral", "其他/other", "难过/sad",
          "吃惊/surprised", "<unk>"]  # fmt: skip
_DROPS = {"start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0}
_AUDIO = _DROPS | {
    "type": "AUDIO", "prenet_depth": 1, "prenet_layerdrop": 0.0, "prenet_dropout": 0.0, "num_extra_tokens": 2,
    "init_extra_token_zero": True, "use_alibi_encoder": True, "alibi_scale": 1.0, "learned_alibi": False,
    "alibi_max_pos": None, "learned_alibi_scale": True, "learned_alibi_scale_per_head": True,
    "learned_alibi_scale_per_layer": False, "num_alibi_heads": 2, "model_depth": 1, "extractor_mode": "layer_norm",
    "feature_encoder_spec": "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2", "conv_pos_width": 15,
    "conv_pos_groups": 4, "conv_pos_depth": 2, "conv_pos_pre_ln": False, "decoder": None, "local_grad_mult": 1.0,
    "ema_local_encoder": False, "mask_prob": 0.5, "mask_length": 5,
}  # fmt: skip
EMOTION_MODEL = _DROPS | {
    "loss_beta": 0.0, "loss_scale": None, "depth": 1, "num_heads": 2, "norm_eps": 1e-5, "norm_affine": True,
    "encoder_dropout": 0.1, "post_mlp_drop": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.0,
    "dropout_input": 0.0, "layerdrop": 0.0, "embed_dim": 32, "mlp_ratio": 2.0, "layer_norm_first": False,
    "average_top_k_layers": 1, "end_of_block_targets": False, "clone_batch": 1, "normalize": True,
    "modalities": {"audio": _AUDIO},
}  # fmt: skip


def make_whisper(path: Path, multilingual: bool = True, positions: int = 40) -> Path:
    """A random Whisper of 2 + 2 layers x 32 that writes letters, one a token, half as many at most as positions."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    text = len(vocabulary)
    tokenizer = WhisperTokenizer(vocab=vocabulary | {MARKS[0]: text}, merges=[], pad_token=MARKS[0])
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS[1:]})
    index = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    assert index == {mark: text + position for position, mark in enumerate(MARKS)}
    torch.manual_seed(0)
    special = {"bos_token_id": text, "eos_token_id": text, "pad_token_id": text, "decoder_start_token_id": text + 1}
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_target_positions=positions, init_std=0.5,
        suppress_tokens=None, begin_suppress_tokens=None, **special,
    ))  # fmt: skip
    letters = [vocabulary[letter] for letter in string.ascii_lowercase] + [vocabulary["Ġ"]]
    settings: dict[str, Any] = special | {
        "is_multilingual": multilingual, "no_timestamps_token_id": index["<|notimestamps|>"],
        "suppress_tokens": sorted(set(range(len(tokenizer))) - {*letters, text}), "max_length": positions,
        "begin_suppress_tokens": [vocabulary["Ġ"], text],
    }  # fmt: skip
    if multilingual:
        settings |= {
            "lang_to_id": {mark: index[mark] for mark in MARKS[2:5]},
            "task_to_id": {task: index[f"<|{task}|>"] for task in ("translate", "transcribe")},
        }
    model.generation_config = GenerationConfig(**settings)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    WhisperFeatureExtractor().save_pretrained(path)
    return path


def make_wavlm(path: Path, kind: type = WavLMForXVector) -> Path:
    torch.manual_seed(0)
    model = kind(WavLMConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=[16] * 7,
        tdnn_dim=[32, 32, 32, 32, 64], xvector_output_dim=24, num_buckets=32, num_conv_pos_embedding_groups=4,
        initializer_range=0.3, use_weighted_layer_sum=True,
    ))  # fmt: skip
    model.save_pretrained(path)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(path)
    return path


def wavlm_large_shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of the file's weights, but for what only training needed."""
    wavlm: dict[str, tuple[int, ...]] = {"mask_emb": (HIDDEN,)}

    def linear(name: str, out: int, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    for place, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        wavlm[f"feature_extractor.conv_layers.{place}.0.weight"] = (CONVS, CONVS if place else 1, kernel)
        wavlm |= norm(f"feature_extractor.conv_layers.{place}.2.1", CONVS)
    wavlm |= norm("layer_norm", CONVS) | linear("post_extract_proj", HIDDEN, CONVS) | norm("encoder.layer_norm", HIDDEN)
    wavlm |= {"encoder.pos_conv.0.weight_g": (1, 1, 16), "encoder.pos_conv.0.weight_v": (HIDDEN, HIDDEN // 4, 16)}
    wavlm["encoder.pos_conv.0.bias"] = (HIDDEN,)
    for place in range(2):
        layer = f"encoder.layers.{place}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            wavlm |= linear(f"{layer}.self_attn.{name}", HIDDEN, HIDDEN)
        wavlm |= linear(f"{layer}.self_attn.grep_linear", 8, HIDDEN // 2)
        wavlm[f"{layer}.self_attn.grep_a"] = (1, 2, 1, 1)
        wavlm |= linear(f"{layer}.fc1", INNER, HIDDEN) | linear(f"{layer}.fc2", HIDDEN, INNER)
        wavlm |= norm(f"{layer}.self_attn_layer_norm", HIDDEN) | norm(f"{layer}.final_layer_norm", HIDDEN)
    wavlm["encoder.layers.0.self_attn.relative_attention_bias.weight"] = (32, 2)
    found = {f"feature_extract.model.{name}": shape for name, shape in wavlm.items()} | {"feature_weight": (3,)}

    def conv(name: str, out: int, width: int, kernel: int = 1) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, width, kernel), f"{name}.bias": (out,)}

    def batch_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return norm(name, width) | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}

    found |= conv("layer1.conv", CHANNELS, HIDDEN, 5) | batch_norm("layer1.bn", CHANNELS)
    for layer in ("layer2", "layer3", "layer4"):
        for block in ("Conv1dReluBn1", "Conv1dReluBn2"):
            found |= conv(f"{layer}.{block}.conv", CHANNELS, CHANNELS) | batch_norm(f"{layer}.{block}.bn", CHANNELS)
        for part in range(7):
            found |= conv(f"{layer}.Res2Conv1dReluBn.convs.{part}", CHANNELS // 8, CHANNELS // 8, 3)
            found |= batch_norm(f"{layer}.Res2Conv1dReluBn.bns.{part}", CHANNELS // 8)
        found |= linear(f"{layer}.SE_Connect.linear1", 4, CHANNELS) | linear(f"{layer}.SE_Connect.linear2", CHANNELS, 4)
    found |= conv("conv", LAST, 3 * CHANNELS) | batch_norm("bn", 2 * LAST) | linear("linear", SIZE, 2 * LAST)
    return found | conv("pooling.linear1", 4, LAST) | conv("pooling.linear2", LAST, 4)


def wavlm_large_weights() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in wavlm_large_shapes().items():
        values = rng.normal(size=shape)
        if name.endswith(("running_var", "weight_g")) or (name.endswith("weight") and len(shape) == 1):
            values = 0.5 + np.abs(values) / 2
        elif len(shape) > 1:
            values *= np.prod(shape[1:]) ** -0.5
        made[name] = torch.from_numpy(values.astype(np.float32))
    return made


def make_emotion(path: Path) -> Path:
    """A random emotion2vec of one layer in the layout of emotion2vec/emotion2vec_plus_large. It needs funasr."""
    from funasr.models.emotion2vec.model import Emotion2vec

    torch.manual_seed(0)
    model = Emotion2vec(model_conf=EMOTION_MODEL, vocab_size=len(EMOTIONS))
    with torch.no_grad():  # by default random weights make all embeddings the same
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
    torch.save(model.state_dict(), path / "model.pt")
    (path / "tokens.txt").write_text("\n".join(EMOTIONS) + "\n")
    config = {"model": "Emotion2vec", "model_conf": EMOTION_MODEL, "tokenizer": "CharTokenizer",
              "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True}}  # fmt: skip
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    files = {"init_param": "model.pt", "tokenizer_conf": {"token_list": "tokens.txt"}, "config": "config.yaml"}
    layout = {"framework": "pytorch", "task": "emotion-recognition", "model": {"type": "funasr"},
              "file_path_metas": files}  # fmt: skip
    (path / "configuration.json").write_text(json.dumps(layout))
    return path
