"""What `llasa train lm --plan` promises, against what a step really takes."""

import gc
import itertools
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nested import lm_settings, nest
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from llasa.cli import main
from llasa.errors import LlasaError
from llasa.models.defaults import half_precision
from llasa.train.lm import memory as plan
from llasa.train.lm.data import Pack
from llasa.train.lm.memory import make_plan, read_config, remedy
from llasa.train.lm.run import train
from llasa.train.lm.settings import LMSettings
from llasa.train.lm.stage import Trainer, make_model
from llasa.train.schedule import Average, make_optimisers
from llasa.train.settings import changed, read_settings

RECIPES = Path(__file__).parents[3] / "recipes"
BIG = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def settings(recipe: dict[str, Any], **changes: Any) -> LMSettings:
    return lm_settings(**(recipe | {"out": "", "pointing_heads": [], "longest": 64, "tokens": 1024} | changes))


def full_pack(wanted: LMSettings, rows: int) -> Pack:
    """A pack of samples of the greatest length, every token with a loss."""
    count = wanted.data.tokens
    ids = torch.randint(rows, (count,), generator=torch.Generator().manual_seed(0))
    bounds = list(range(0, count + 1, wanted.data.longest))
    positions = torch.arange(count) % wanted.data.longest
    none = torch.full((count,), -1)
    chat, starts = torch.zeros(count, dtype=torch.bool), torch.tensor(bounds, dtype=torch.int32)
    return Pack(ids, ids.roll(-1), positions, none, chat, bounds, starts, [], 1.0, [], 0)


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known and size:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return out


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def half(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor with instructions for bfloat16, and one without, where training stays in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param})
    return request.param


GROUPS = {"output_groups": [2, 1]}


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"factored": False}, {"init": "tied"}, {"init": "tied", "factored": False},
        GROUPS, GROUPS | {"factored": False}, GROUPS | {"init": "tied"},
    ],
)  # fmt: skip
def test_parameters_and_states_are_counted_exactly(
    changes: dict[str, Any], recipe: dict[str, Any], tmp_path: Path, codec_folder: Path
) -> None:
    from small_models import make_lm_folder

    if "init" in changes:
        changes = changes | {"init": str(make_lm_folder(tmp_path, codec_folder, tie_word_embeddings=True)), "model": {}}
    wanted = settings(recipe, **changes)
    plan = make_plan(wanted, read_config(wanted))
    trainer = Trainer(make_model(wanted)[0], wanted)
    assert plan.parameters == sum(parameter.numel() for parameter in trainer.parameters())
    groups = make_optimisers(trainer, wanted.schedule.lr, wanted.schedule.muon_lr)
    for parameter in trainer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimiser in groups:
        optimiser.step()
    states = [t for o in groups for state in o.state.values() for t in state.values() if t.ndim]
    assert plan.memory["optimiser"] == sum(4 * tensor.numel() for tensor in states)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_keeps(checkpointing: bool, half: bool, recipe: dict[str, Any]) -> None:
    wanted = settings(recipe, model=BIG, factored=False, gradient_checkpointing=checkpointing)
    config = read_config(wanted)
    model, _ = make_model(wanted)
    trainer, kept = Trainer(model, wanted).train(), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), half_precision("cpu"):
        loss = trainer(full_pack(wanted, config.vocab_size))["speech"]
    plan = make_plan(wanted, config)
    measured = sum(kept.values())
    planned = plan.memory["activations"]
    if checkpointing:
        # A layer at work, and the products' bfloat16 copies, are there only while they are needed.
        whole = make_plan(changed(wanted, {"memory.gradient_checkpointing": False}), config).memory["activations"]
        assert measured < 0.5 * whole
        assert measured <= 1.1 * planned
    else:
        assert ("bfloat16 copies" in plan.memory) == half
        planned += plan.memory.get("bfloat16 copies", 0) + wanted.data.tokens * config.vocab_size * 4
        assert measured == pytest.approx(planned, rel=0.1)
    loss.backward()


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"ema": 0, "rows": 2}])
def test_the_peak_is_what_a_step_allocates(changes: dict[str, Any], half: bool, recipe: dict[str, Any]) -> None:
    wanted = settings(recipe, model=BIG, factored=False, muon_lr=0, **changes)
    config = read_config(wanted)
    model, _ = make_model(wanted)
    trainer = Trainer(model, wanted).train()
    groups, pack = make_optimisers(trainer, wanted.schedule.lr, 0), full_pack(wanted, config.vocab_size)
    counted = Allocated()
    for parameter in trainer.parameters():
        counted.add(parameter)
    with counted:
        average = Average(trainer, wanted.schedule.ema)
        for step in range(2):
            for _ in range(wanted.data.rows or 1):
                with half_precision("cpu"):
                    loss = trainer(pack)["speech"]
                loss.backward()
                del loss
            for optimiser in groups:
                optimiser.step()
                optimiser.zero_grad()
            average.update(trainer, step)
    gc.collect()
    assert counted.peak == pytest.approx(make_plan(wanted, config).peak, rel=0.2)


def test_flops_are_what_torch_counts(recipe: dict[str, Any]) -> None:
    wanted = settings(recipe, model=BIG, factored=False, tokens=256)
    config = read_config(wanted)
    trainer = Trainer(make_model(wanted)[0], wanted).train()
    # The counter knows no attention of the CPU but the plain one, which computes what is masked out as well.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        trainer(full_pack(wanted, config.vocab_size))["speech"].backward()
    masked = 6 * config.num_hidden_layers * config.hidden_size * wanted.data.longest
    planned = (make_plan(wanted, config).flops + masked) * wanted.data.tokens
    assert counter.get_total_flops() == pytest.approx(planned, rel=0.02)


# Llama 3.2's and 3.1's own numbers, and 65,544 more rows of each table.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llasa-1b", 1_235_814_400 + 65_544 * 2048),
        ("llasa-3b", 3_212_749_824 + 65_544 * 3072),
        ("llasa-8b", 8_030_261_248 + 2 * 65_544 * 4096),
    ],
)
def test_the_presets_are_the_papers_models(name: str, parameters: int) -> None:
    wanted = read_settings(LMSettings, RECIPES / name / "lm.yaml")
    plan = make_plan(wanted, read_config(wanted), accelerator=True)
    assert plan.parameters == parameters
    assert plan.memory.keys().isdisjoint({"average", "factored tables"})
    assert plan.flops == pytest.approx(6 * parameters, rel=0.12)
    assert wanted.schedule.warmup == round(0.03 * wanted.schedule.steps)


def test_what_does_not_fit_is_refused_before_it_is_loaded(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "room", lambda device, processes: 20 * 10**9)  # whatever else runs here
    vast = {"hidden_size": 16384, "intermediate_size": 65536, "num_hidden_layers": 200, "num_attention_heads": 128}
    with pytest.raises(LlasaError, match=r"needs [\d.e+]+ GB .* smaller model"):
        train(settings(recipe, model=vast, out=str(tmp_path / "lm")))
    with pytest.raises(LlasaError, match=r"set memory\.gradient_checkpointing: true"):
        train(settings(recipe, model=BIG, tokens=2**28, longest=2**20, out=str(tmp_path / "lm")))
    assert not (tmp_path / "lm").exists()


def test_the_remedy_makes_it_fit(half: bool, recipe: dict[str, Any]) -> None:
    wanted = settings(recipe, model=BIG, tokens=2**14, factored=False)
    config = read_config(wanted)
    whole = make_plan(wanted, config).peak
    seen = set()
    for percent in (80, 30, 20, 15, 14, 13, 12):
        free = whole * percent // 100
        advice = remedy(wanted, config, 1, False, free)
        seen.add(advice)
        if advice.startswith("set "):
            changes = yaml.safe_load("{" + advice.removeprefix("set ") + "}")
            assert make_plan(changed(wanted, changes), config).peak <= free
        else:
            assert "smaller model" in advice
    assert len(seen) > 2


def test_the_command_prints_the_plan_and_trains_nothing(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(nest(LMSettings, recipe | {"out": str(tmp_path / "lm")})))
    for file in (path, RECIPES / "llasa-1b" / "lm.yaml"):
        with pytest.raises(SystemExit) as ended:
            main(["train", "lm", str(file), "--plan"])
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[0] for line in lines] == [
            "parameters", "a step", "memory", "of it", "disk", "FLOPs", "time",
        ]  # fmt: skip
    assert "1,370,048,512" in lines[0]
    assert not (tmp_path / "lm").exists()
    assert not list(itertools.chain(tmp_path.glob("runs")))


def test_a_plan_under_torchrun_shares_the_machine(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "room", lambda device, processes=1: 12 * plan.GB // processes)
    assert " a process of 12 GB" in plan.report(settings(recipe, rows=4))
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    told = plan.report(settings(recipe, rows=16))
    assert " a process of 3 GB" in told
    assert "2 a process" in told


def test_a_model_that_the_machine_cannot_load_for_every_gpu_is_refused(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"cuda": 80 * plan.GB, "cpu": 8 * plan.GB}
    monkeypatch.setattr(plan, "room", lambda device, processes=1: free[device.type] // processes)
    wanted = settings(recipe, model=BIG | {"hidden_size": 2048, "num_hidden_layers": 24})
    plan.require_memory(wanted, torch.device("cuda"), 1)
    with pytest.raises(LlasaError, match=r"each of 8 processes first loads the whole model, [\d.]+ GB, .* use 1 GB"):
        plan.require_memory(wanted, torch.device("cuda"), 8)
