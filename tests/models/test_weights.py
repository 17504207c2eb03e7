"""Checkpoints of the official shape, in every layout they come in, against transformers; and broken ones."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from official import ROPE
from safetensors.torch import load_file, save_file
from small_models import make_lm
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from llasa.engine import Sampling
from llasa.engine.sampling import Sampler
from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError
from llasa.models.lora import open_model
from llasa.models.sizes import llama_config, plain_sizes
from llasa.models.weights import place_layers, tensor_shapes

# As in every official checkpoint; the rest is as in Llasa-1B but for the sizes: 4 queries share a key, and so on.
VOCABULARY, FIRST, SIZE, END = 193800, 128264, 65536, 128261
LEGAL = torch.tensor([*range(FIRST, FIRST + SIZE), END])
SHAPE = {
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": ROPE,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "bos_token_id": 128000, "eos_token_id": 128009,
    "pad_token_id": None,
}  # fmt: skip
PROMPT = [128000, 9, 4711, 127999, 128256, 70, 128260, FIRST, FIRST + 65535, FIRST + 12345]
GREEDY = Sampling(temperature=0)
LAYOUTS: dict[str, tuple[torch.dtype, bool, str]] = {
    "one file, tied, bfloat16": (torch.bfloat16, True, "5GB"),
    "shards, tied, float32": (torch.float32, True, "100KB"),
    "shards, untied, float16": (torch.float16, False, "100KB"),
}


def save(
    path: Path, dtype: torch.dtype = torch.float32, tied: bool = True, shard: str = "5GB", **changes: object
) -> Path:
    model = make_lm(VOCABULARY, tie_word_embeddings=tied, **(SHAPE | changes)).to(dtype)
    model.save_pretrained(path, max_shard_size=shard)
    return path


@pytest.fixture(scope="module", params=LAYOUTS)
def official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dtype, tied, shard = LAYOUTS[request.param]
    return save(tmp_path_factory.mktemp("official") / "lm", dtype, tied, shard)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """In three files, to be broken."""
    make_lm(150, tie_word_embeddings=True).save_pretrained(tmp_path / "lm", max_shard_size="100KB")
    assert len(list((tmp_path / "lm").glob("*.safetensors"))) >= 3
    return tmp_path / "lm"


def engine_of(folder: Path, dtype: torch.dtype) -> Engine:
    return Engine(open_model(folder, "cpu", dtype), FIRST, SIZE, END, 512)


def legal_logits(model: LlamaForCausalLM, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0][:, LEGAL]


def first_logits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The logits of the first step after `PROMPT`, (legal,)."""
    seen: list[Tensor] = []
    choose = Sampler.choose

    def record(self: Sampler, logits: Tensor, *rest: Tensor) -> Tensor:
        seen.append(logits[0])
        return choose(self, logits, *rest)

    monkeypatch.setattr(Sampler, "choose", record)
    engine.extend(engine.start([PROMPT], sampling=GREEDY), 1)
    return seen[0]


def test_greedy_is_transformers_generate(official: Path):
    """In float32, in which the weights of every layout are exact."""
    model = LlamaForCausalLM.from_pretrained(official, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    illegal = torch.ones(VOCABULARY, dtype=torch.bool).index_fill(0, LEGAL, False).nonzero()[:, 0].tolist()
    wanted = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, eos_token_id=END,
        pad_token_id=END, suppress_tokens=illegal,
    )[0, len(PROMPT) :].tolist()  # fmt: skip
    engine = engine_of(official, torch.float32)
    assert engine.extend(engine.start([PROMPT], sampling=GREEDY), 30).tokens == [wanted]
    assert len(set(wanted)) > 5


def test_the_official_config_is_of_transformers_4(small: Path):
    """Whose keys for rotary embeddings and precision were others."""
    path = small / "config.json"
    values = json.loads(path.read_text())
    changed = {name: value for name, value in values.items() if name not in ("rope_parameters", "dtype")}
    scaling = {name: value for name, value in ROPE.items() if name != "rope_theta"}
    path.write_text(json.dumps(changed | {"rope_scaling": scaling, "rope_theta": 500000.0, "torch_dtype": "bfloat16"}))
    old = Engine(open_model(small, "cpu", torch.float32), 50, 90, 40)
    path.write_text(json.dumps(changed | {"rope_parameters": ROPE}))
    new = Engine(open_model(small, "cpu", torch.float32), 50, 90, 40)
    assert torch.equal(old.llama.rotations, new.llama.rotations)
    path.write_text(json.dumps(changed))
    plain = Engine(open_model(small, "cpu", torch.float32), 50, 90, 40)
    assert not torch.equal(old.llama.rotations, plain.llama.rotations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_next_token_probabilities_are_transformers_in_every_precision(
    official: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """Restricted to legal tokens. The reference has the weights rounded to `dtype` and computes in float32."""
    model = LlamaForCausalLM.from_pretrained(official, dtype=dtype).float()
    wanted = legal_logits(model, PROMPT)[-1]
    found = first_logits(engine_of(official, dtype), monkeypatch)
    difference = (found.softmax(-1) - wanted.softmax(-1)).abs().sum() / 2  # total variation
    assert difference < {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.002}[dtype]


@pytest.mark.parametrize("official", list(LAYOUTS)[:1], indirect=True)
def test_what_is_sampled_follows_the_probabilities(official: Path):
    """A chi-square test over 30 bins of tokens, equally likely by transformers' reckoning."""
    model = LlamaForCausalLM.from_pretrained(official, dtype=torch.float32)
    probabilities = (legal_logits(model, PROMPT)[-1].double() / 0.8).softmax(-1)
    rows, bins = 2000, 30
    ranked = probabilities.argsort(descending=True)
    place = torch.empty(SIZE + 1, dtype=torch.long)
    cumulative = probabilities[ranked].cumsum(0) - probabilities[ranked] / 2
    place[ranked] = (cumulative * bins).long().clamp(max=bins - 1)
    wanted = torch.zeros(bins, dtype=torch.double).index_add(0, place, probabilities) * rows
    engine = engine_of(official, torch.float32)
    state = engine.start([PROMPT], rows, range(rows), Sampling(temperature=0.8), max_tokens=1)
    counts = torch.zeros(bins, dtype=torch.double)
    for start in range(0, rows, 500):  # logits of 65,537 tokens a row
        part = engine.extend(engine.select(state, range(start, start + 500)), 1)
        drawn = torch.tensor([tokens[0] - FIRST if tokens else SIZE for tokens in part.tokens])
        counts += torch.zeros(bins, dtype=torch.double).index_add(0, place[drawn], torch.ones(500, dtype=torch.double))
    assert wanted.min() > 5
    assert ((counts - wanted) ** 2 / wanted).sum() < 49.6  # chi-square's 99 % quantile for 29 degrees of freedom


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what a process has mapped")
def test_nothing_of_the_files_is_held_but_the_embedding(tmp_path: Path):
    folder = save(tmp_path / "lm", torch.bfloat16, shard="100KB")
    engine = engine_of(folder, torch.bfloat16)
    maps = Path("/proc/self/maps").read_text()
    held = {Path(line.split()[-1]).name for line in maps.splitlines() if str(folder) in line}
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert held == {index["model.embed_tokens.weight"]}
    assert len(set(index.values())) == 3
    assert engine.llama.embedding.shape == (VOCABULARY, 64)


def test_a_head_that_is_there_is_used_although_the_config_says_tied(tmp_path: Path):
    """As transformers does."""
    make_lm(150).save_pretrained(tmp_path / "lm")
    config = json.loads((tmp_path / "lm" / "config.json").read_text())
    (tmp_path / "lm" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    checkpoint = open_model(tmp_path / "lm", "cpu", torch.float32)
    assert not torch.equal(checkpoint.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight"))
    weights = load_file(tmp_path / "lm" / "model.safetensors")
    head = weights.pop("model.embed_tokens.weight")
    save_file(weights, tmp_path / "lm" / "model.safetensors", {"format": "pt"})
    checkpoint = open_model(tmp_path / "lm", "cpu", torch.float32)
    assert torch.equal(checkpoint.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight"))
    assert head.shape == (150, 64)


# --- Several devices. There was no GPU: what follows is what a machine without can show. ---


def layered(folder: Path, *devices: str) -> Engine:
    checkpoint = open_model(folder, "cpu", torch.float32)
    return Engine(replace(checkpoint, devices=tuple(map(torch.device, devices))), 50, 90, 40)


def test_activations_move_from_device_to_device(small: Path):
    """The meta device computes shapes and no values: prompts, forks and selections pass through it, sampling cannot."""
    whole, split = layered(small, "cpu", "cpu"), layered(small, "cpu", "meta")
    prompts = [[3, 4, 5, 60], [9, 61, 62]]
    wanted, found = (engine.start(prompts, 2, range(4)) for engine in (whole, split))
    assert [part.device.type for part in found.cache] == ["cpu", "meta"]
    assert [part.shape[0] for part in found.cache] == [1, 1]
    for row, length in enumerate([3, 3, 2, 2]):
        assert torch.equal(found.cache[0][0, :, row, :, :length], wanted.cache[0][0, :, row, :, :length])
    joined = split.merge(split.select(found, [3, 0]), found)
    assert [part.device.type for part in joined.cache] == ["cpu", "meta"]
    assert torch.equal(joined.cache[0][0, :, 1, :, :3], wanted.cache[0][0, :, 0, :, :3])


def test_layers_go_where_there_is_room():
    config = LlamaConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    layer = 4 * sum(weight.numel() for weight in model.model.layers[0].parameters())
    outside = 4 * 1000 * 64
    room: dict[int | str, int] = {0: outside + 5 * layer, 1: 4 * layer, "cpu": 100 * layer}
    kinds = [str(device) for device in place_layers(config, torch.float32, room)]
    assert kinds == sorted(kinds, key=["cuda:0", "cuda:1", "cpu"].index)
    assert len(set(kinds)) > 1
    assert set(place_layers(config, torch.float32, {"cpu": 10**9})) == {torch.device("cpu")}
    with pytest.raises(LlasaError, match="does not fit into the memory of all devices"):
        place_layers(config, torch.float32, {"cpu": outside + 2 * layer})


def test_spreading_over_a_machine_without_a_gpu_changes_nothing(small: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    one, spread = (Engine(open_model(small, "cpu", torch.float32, spread), 50, 90, 40) for spread in (False, True))
    tokens = [engine.extend(engine.start([[3, 4, 5]], seeds=[1]), 20).tokens for engine in (one, spread)]
    assert tokens[0] == tokens[1]


# --- Broken folders ---


def refuses(folder: Path, message: str) -> str:
    with pytest.raises(LlasaError, match=message) as caught:
        open_model(folder, "cpu", torch.float32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_shard_that_was_downloaded_by_half(small: Path):
    shard = sorted(small.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:size])
        assert shard.name in refuses(small, "damaged or incomplete: download or copy it again")
    shard.unlink()
    refuses(small, rf"lacks {shard.name} \(1 of \d+ files of its weights are missing\): download or copy")


def test_an_index_that_is_none(small: Path):
    for text, message in (("{", "cannot be read"), ("{}", "names no files"), ('{"weight_map": {}}', "names no files")):
        (small / "model.safetensors.index.json").write_text(text)
        refuses(small, message)


def test_weights_and_config_of_different_models(small: Path):
    config = json.loads((small / "config.json").read_text())
    for changes, message in (
        ({"num_hidden_layers": 3}, r"lack model.layers.2.* \(9 missing in all\)"),
        ({"intermediate_size": 64}, r"cannot be loaded: model.layers.0.mlp.* asks for \[64, 64\]"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "are quantised"),
        ({"model_type": "qwen2"}, "type 'qwen2', not 'llama'"),
        ({"num_attention_heads": "many"}, "`num_attention_heads` is 'many': it must be a whole number"),
    ):
        (small / "config.json").write_text(json.dumps(config | changes))
        refuses(small, message)


def test_old_weights_and_the_command_that_converts_them(python: list[str], tmp_path: Path, lm_folder: Path):
    from transformers import AutoTokenizer

    folder = tmp_path / "old"
    model = LlamaForCausalLM.from_pretrained(lm_folder)
    model.config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(lm_folder).save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    command = re.search(
        r'convert them once with python -c "(.*)"$', refuses(folder, "only in the old pytorch_model.bin")
    )
    assert command
    subprocess.run([*python, "-c", command[1]], check=True, capture_output=True)
    checkpoint = open_model(folder, "cpu", torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.equal(checkpoint.tensor(name), weight)


@pytest.mark.parametrize("biased", [False, True])
def test_the_shapes_are_those_of_transformers(biased: bool) -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, attention_bias=biased, mlp_bias=biased,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert tensor_shapes(config) == {name: list(weight.shape) for name, weight in model.state_dict().items()}


def test_plain_sizes_are_what_transformers_reads(tmp_path: Path) -> None:
    make_lm(150).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    ours, theirs = plain_sizes(values), llama_config(values)
    assert ours is not None
    assert all(getattr(theirs, name) == value for name, value in vars(ours).items())
    scaled = values | {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}
    unsaid = {name: value for name, value in values.items() if name != "head_dim"}
    assert plain_sizes(scaled) is plain_sizes(unsaid) is None
