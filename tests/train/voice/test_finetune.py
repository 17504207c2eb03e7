"""From recordings and a base to a folder that speaks: a LoRA or whole, stopped and crashed on the way, and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official import make_official_folder
from peft import PeftModel
from safetensors.torch import load_file
from small_models import make_lm_folder
from stopping import stopping_at
from train.recordings import make_recordings
from transformers import AutoModelForCausalLM

from llasa.data.teachers.teacher import RATE
from llasa.errors import LlasaError
from llasa.files import claimed
from llasa.models.lora import merge_lora, save_merged
from llasa.text.lexicon import load_lexicon, save_lexicon
from llasa.train import schedule
from llasa.train.checkpoint import CHECKPOINT
from llasa.train.voice import finetune as stage
from llasa.train.voice import memory as finetune_plan
from llasa.train.voice.finetune import FinetuneJob, Result, finetune, name_of
from llasa.tts import Llasa
from llasa.voice import Voice


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("recordings") / "my voice")


@pytest.fixture(scope="module")
def base(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a voice, a default one, sampling settings and a lexicon of its own."""
    folder = make_lm_folder(tmp_path_factory.mktemp("bases") / "base", codec_folder, initializer_range=0.02)
    config = json.loads((folder / "config.json").read_text()) | {"default_voice": "anna"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "min_p": 0.1}))
    Voice("anna", "Hello there.", np.arange(60, dtype=np.uint16), "?").save(folder / "voices" / "anna.safetensors")
    save_lexicon({"slowly": "slo"}, folder)
    return folder


def run(job: FinetuneJob) -> tuple[Result, list[str]]:
    told: list[str] = []
    result = finetune(job, told.append)
    assert result is not None
    return result, told


@pytest.fixture(scope="module")
def lora(recordings: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, list[str]]:
    out = tmp_path_factory.mktemp("tuned") / "lora"
    return out, *run(FinetuneJob(str(recordings), str(base), out))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[0, 3, 4, 5, 6, 7, 60, 61]])).logits[0]


def test_a_lora_learns_and_speaks_in_the_new_voice(lora: tuple[Path, Result, list[str]], base: Path) -> None:
    out, result, told = lora
    assert result.after < 0.9 * result.before
    assert 0 < result.step <= result.steps
    text = "\n".join(told)
    assert "7, 0.2 minutes; 2 more are held out" in text
    assert "a LoRA of rank 32 on all layers" in text
    assert "tokens/s  at most" in text
    model = Llasa.load(out)
    assert model.defaults.temperature == 0.3
    assert list(model.voices()) == ["my voice", "anna"]
    voice = model.voice()
    assert voice is not None
    assert (voice.name, voice.codec) == ("my voice", model.codec_id)
    assert voice.text.endswith(".")
    assert voice.samples is not None
    assert abs(voice.samples.size / RATE - len(voice.codes) / 50) < 0.05
    said = model.say("the river", seed=1, max_seconds=1)
    assert said.codes.tolist() == model.say("the river", voice, seed=1, max_seconds=1).codes.tolist()
    assert not list(out.rglob("*.tmp"))
    assert {path.name for path in (out / "training").iterdir()} == {
        "codes", "job.json", "result.json", "log.jsonl", "tensorboard",
    }  # fmt: skip


def test_the_lora_is_peft_s(lora: tuple[Path, Result, list[str]], base: Path, tmp_path: Path) -> None:
    out, _, _ = lora
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = logits(plain)
    tuned = logits(PeftModel.from_pretrained(plain, str(out)).eval())
    assert float((tuned - before).abs().max()) > 0.1
    assert torch.allclose(logits(merge_lora(out)), tuned, atol=1e-4)
    save_merged(out, tmp_path / "merged")
    merged = Llasa.load(tmp_path / "merged")
    assert list(merged.voices()) == ["anna", "my voice"]
    voice = merged.voice()
    assert voice is not None
    assert voice.name == "my voice"


def test_what_is_finished_is_left_alone(lora: tuple[Path, Result, list[str]], recordings: Path, base: Path) -> None:
    out, result, _ = lora
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    again, told = run(FinetuneJob(str(recordings), str(base), out))
    assert (again, told) == (result, [])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"} == before


def test_a_lora_does_not_go_with_other_weights(
    lora: tuple[Path, Result, list[str]], base: Path, tmp_path: Path, codec_folder: Path
) -> None:
    copy = tmp_path / "lora"
    shutil.copytree(lora[0], copy)
    config = json.loads((copy / "adapter_config.json").read_text())
    other = make_lm_folder(tmp_path / "other", codec_folder, seed=1)
    (copy / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(other)}))
    with pytest.raises(LlasaError, match="was trained on other weights"):
        Llasa.load(copy)


def test_all_weights(recordings: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "full"
    result, told = run(FinetuneJob(str(recordings), str(base), out, full=True, name="me", steps=30))
    assert result.after < result.before
    assert "all weights, 0." in "\n".join(told)
    model = Llasa.load(out)
    voice = model.voice()
    assert voice is not None
    assert voice.name == "me"
    assert list(model.voices()) == ["me"]
    assert load_lexicon(out) == load_lexicon(base)
    assert model.say("the river", seed=1, max_seconds=1).samples.size
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.dtype == torch.float32
    assert float((logits(plain) - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max()) > 0.01


@pytest.mark.parametrize("full", [False, True])
def test_a_model_of_the_official_layout(recordings: Path, codec_folder: Path, tmp_path: Path, full: bool) -> None:
    """Tied embeddings, a tokenizer of sub-words, Llama 3's chat template, no voices and no default one."""
    folder = make_official_folder(tmp_path / "official")
    config = json.loads((folder / "config.json").read_text()) | {"codec": str(codec_folder)}
    (folder / "config.json").write_text(json.dumps(config))
    result, _ = run(FinetuneJob(str(recordings), str(folder), tmp_path / "out", full=full, steps=20))
    assert result.after < result.before
    model = Llasa.load(tmp_path / "out")
    voice = model.voice()
    assert voice is not None
    assert voice.name == "my voice"
    assert model.say("Hello there, how are you today?", seed=1, max_seconds=1).samples.size
    if full:
        assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")


def test_stopped_and_crashed_it_ends_the_same(recordings: Path, base: Path, tmp_path: Path) -> None:
    jobs = [FinetuneJob(str(recordings), str(base), tmp_path / name, steps=16) for name in ("whole", "parts")]
    whole, _ = run(jobs[0])
    with stopping_at(5):
        assert finetune(jobs[1], lambda line: None) is None
    assert torch.load(tmp_path / "parts" / "training" / CHECKPOINT, weights_only=True)["step"] == 5
    assert Llasa.load(tmp_path / "parts").say("a river", seed=1, max_seconds=1).samples.size  # with what it is so far

    def crash(line: str) -> None:  # between the model's weights and the checkpoint
        if line.startswith("finetune 12/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(jobs[1], crash)
    parts, told = run(jobs[1])
    assert any(line.startswith("resuming from step") for line in told)
    assert parts == whole
    ends = [load_file(job.out / "adapter_model.safetensors") for job in jobs]
    assert all(torch.equal(ends[1][name], tensor) for name, tensor in ends[0].items())


def test_what_only_gets_worse_ends_soon_and_changes_nothing(
    recordings: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "learning_rate", lambda *_: -0.01)  # up the hill
    result, _ = run(FinetuneJob(str(recordings), str(base), tmp_path / "out", steps=200))
    assert (result.step, result.before) == (0, result.after)
    assert result.steps < 200
    same = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert torch.equal(logits(merge_lora(tmp_path / "out")), logits(same))


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    recordings: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_plan, "learning_rate", lambda width, full: float("inf"))
    with pytest.raises(LlasaError, match=r"finetune: .* is nan at step \d"):
        finetune(FinetuneJob(str(recordings), str(base), tmp_path / "out", steps=200), lambda line: None)
    assert Llasa.load(tmp_path / "out").voice() is not None


def test_what_is_refused(
    recordings: Path, base: Path, codec_folder: Path, lora: tuple[Path, Result, list[str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"

    def refuses(message: str, **changes: Any) -> None:
        job = FinetuneJob(**({"data": str(recordings), "model": str(base), "out": out} | changes))
        with pytest.raises(LlasaError, match=message) as caught:
            finetune(job, lambda line: None)
        assert "\n" not in str(caught.value)

    refuses("no file or folder .*nowhere", data=str(tmp_path / "nowhere"))
    refuses("none of the 6 recordings .* put NAME.txt", data=str(make_recordings(tmp_path / "mute", 6, texts=False)))
    refuses("has 3 recordings with a text, too few .* give 5 or more", data=str(make_recordings(tmp_path / "few", 3)))
    rows = [{"audio": str(recordings / "monday" / f"{i}.wav"), "text": "a", "speaker": f"s{i}"} for i in range(8)]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refuses("has 8 speakers .*'s0', 's1', 's2', ....: give recordings of only one", data=str(tmp_path / "many.jsonl"))
    refuses("is a LoRA: make a model of it first", model=str(lora[0]))
    refuses("'xcodec2', not 'llama'", model=str(codec_folder))
    refuses(
        "the codec of .* is missing: there is no folder", model=str(make_lm_folder(tmp_path / "mute-lm", "./no-codec"))
    )
    refuses(
        "has 32 speech tokens and its codec .* 64 codes",
        model=str(make_lm_folder(tmp_path / "other", codec_folder, codebook_size=32)),
    )
    refuses("--steps is 0: it must be 1 or more", steps=0)
    refuses("cannot name a voice", name="../me")
    refuses("holds other files", out=recordings)
    refuses("many.jsonl is a file: name a folder by --out", out=tmp_path / "many.jsonl")
    refuses("was begun with other full and name", out=lora[0], full=True, name="me")
    refuses("was begun with other data", out=lora[0], data=str(make_recordings(tmp_path / "more", 12)))
    assert not out.exists()
    with claimed(out):
        refuses("is writing into")
    long = [{"audio": str(recordings / "monday" / f"{i}.wav"), "text": "a " * 90} for i in range(8)]
    (tmp_path / "wrong.jsonl").write_text("\n".join(map(json.dumps, long)))
    refuses("the filters dropped every recording", data=str(tmp_path / "wrong.jsonl"), out=tmp_path / "unfit")
    monkeypatch.setattr("llasa.train.lm.memory.room", lambda device: 2**20)
    refuses("take a smaller model", out=tmp_path / "small")
    refuses("leave out --full", out=tmp_path / "smaller", full=True)


def test_a_voice_is_called_as_its_recordings(recordings: Path) -> None:
    assert name_of(str(recordings)) == "my voice"
    assert name_of(f"{recordings}/monday/0.wav") == "0"
    assert name_of("someone/their-voice:clean") == "their-voice-clean"
    assert name_of("/") == "voice"
    assert stage.FinetuneJob("a", "b", Path("c")).voice == "a"
