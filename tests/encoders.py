"""Small random speech models in the layouts of those that X-codec2 was trained with."""

from pathlib import Path

import torch
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel, Wav2Vec2Config, Wav2Vec2ForPreTraining


def make_semantic_folder(path: Path, layers: int = 4) -> Path:
    """As `facebook/w2v-bert-2.0`: relative positions, and what its own training drops and masks."""
    torch.manual_seed(3)
    config = Wav2Vec2BertConfig(
        hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=64, output_hidden_size=32,
        feature_projection_input_dim=160, conv_depthwise_kernel_size=7, layerdrop=0.1, conformer_conv_dropout=0.1,
        mask_time_prob=0.5, initializer_range=0.2,
    )  # fmt: skip
    Wav2Vec2BertModel(config).save_pretrained(path)
    return path


def make_listener_folder(path: Path, layers: int = 4, old: bool = True) -> Path:
    """As `facebook/wav2vec2-large-xlsr-53`: layer norms everywhere, the heads of its training, and old weights."""
    torch.manual_seed(4)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7,
        conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, codevector_dim=16, proj_codevector_dim=16, num_codevectors_per_group=4,
        layerdrop=0.1, mask_time_prob=0.5,
    )  # fmt: skip
    model = Wav2Vec2ForPreTraining(config)
    model.save_pretrained(path)
    if old:
        (path / "model.safetensors").unlink()
        weights = {
            name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): tensor
            for name, tensor in model.state_dict().items()
        }
        torch.save(weights, path / "pytorch_model.bin")
    return path
