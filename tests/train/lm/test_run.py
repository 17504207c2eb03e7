"""Steps in parts, folders with one owner, and what happens when the disk or the numbers run out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nested import dotted, lm_settings, nest
from packed import union
from small_models import make_codec_folder
from stopping import stopping_at

from llasa.cli import main
from llasa.data.origin import JOB, codes_of
from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.errors import LlasaError
from llasa.files import claimed
from llasa.text.lexicon import load_lexicon
from llasa.train.checkpoint import CHECKPOINT
from llasa.train.lm import run as lm_run
from llasa.train.lm.data import Corpus, Pack, Reader, packs, sample_indices, samples
from llasa.train.lm.run import backward, train
from llasa.train.lm.settings import LMSettings
from llasa.train.lm.stage import Trainer, make_model
from llasa.train.log import LOWER
from llasa.train.processes import make_accelerator
from llasa.train.schedule import scheduled_optimisers

HOLD = """
import sys, time
from pathlib import Path
from llasa.files import claimed
with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def two_packs(recipe: dict[str, Any], **changes: Any) -> tuple[LMSettings, Trainer, list[Pack]]:
    """A trainer in float32, and the first packs of its corpus."""
    settings = lm_settings(**(recipe | {"out": ""} | changes))
    torch.manual_seed(0)
    model, vocabulary = make_model(settings)
    lexicon, corpus = (
        load_lexicon(Path(recipe["lexicon"])),
        Corpus({Path(folder): 1 for folder in settings.data.corpus}),
    )
    reader, pad = Reader(vocabulary, lexicon, 50.0, settings.data.spell), vocabulary.tokenizer.pad_token_id
    stream = packs(samples(corpus, reader, 1, 200, settings.data.joined, sample_indices([], 0, 1)), 256, 50.0, pad)
    return settings, Trainer(model, settings).train(), [next(stream), next(stream)]


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in trainer.named_parameters() if parameter.grad is not None}
    trainer.zero_grad()
    return found


def test_several_rows_are_one_row_in_parts(recipe: dict[str, Any]) -> None:
    settings, trainer, (left, right) = two_packs(recipe)
    assert int((left.labels >= 0).sum()) != int((right.labels >= 0).sum())  # or plain means would do as well
    losses = backward(settings, make_accelerator(), trainer, [left, right])
    parts = gradients(trainer)
    terms = trainer(union(left, right))
    (terms["speech"] + settings.losses.pointing_weight * terms["pointing"]).backward()
    assert losses.tolist() == pytest.approx([float(terms["speech"]), 0, float(terms["pointing"]), 0])
    for name, gradient in gradients(trainer).items():
        assert torch.allclose(parts[name], gradient, atol=1e-6), name


def test_gradient_checkpointing_changes_no_gradient(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llasa.train.lm.stage.LOGITS", 50)  # several parts of logits, the last one shorter
    found = []
    for on in (False, True):
        settings, trainer, pair = two_packs(recipe, gradient_checkpointing=on)
        losses = backward(settings, make_accelerator(), trainer, pair)
        found.append((losses, gradients(trainer)))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    assert all(torch.allclose(found[1][1][name], gradient, atol=1e-6) for name, gradient in found[0][1].items())


def test_a_run_as_the_papers_keeps_no_average_and_goes_on(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Two micro-batches, checkpointing, AdamW alone: stopped at half, it ends like a run that was not."""
    paper = recipe | {
        "rows": 2, "gradient_checkpointing": True, "muon_lr": 0, "factored": False, "ema": 0, "lr_floor": 0,
        "pointing_heads": [], "joined": 0, "tokens": 200, "chat": {str(chat(tmp_path)): 2},
    }  # fmt: skip
    train(lm_settings(**paper, out=str(tmp_path / "whole")))
    parts = lm_settings(**(paper | {"steps": 12}), out=str(tmp_path / "parts"))
    with stopping_at(5):
        train(parts)
    assert torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=True)["step"] == 5
    train(parts)
    ends = [torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts")]
    assert ends[0]["average"] == {}
    assert len(ends[0]["optimisers"]) == 1
    assert ends[0]["place"] == ends[1]["place"]
    assert all(torch.equal(ends[1]["model"][name], tensor) for name, tensor in ends[0]["model"].items())
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "parts")]
    assert '"text": ' in logs[0]


def test_a_model_reads_its_own_codes_where_speech_was(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, trainer, (row, _) = two_packs(recipe, sampled=0.8)
    first = int(trainer.model.config.vocab_size) - 64
    codes = range(first, first + 64)
    monkeypatch.setattr("llasa.train.lm.stage.TEMPERATURE", 1e-4)  # it samples what it finds likeliest
    read = trainer.reading_itself(row, codes, 3)
    assert torch.equal(trainer.reading_itself(row, codes, 3).ids, read.ids)
    assert not torch.equal(trainer.reading_itself(row, codes, 4).ids, read.ids)
    assert torch.equal(read.labels, row.labels)
    changed = (read.ids != row.ids).nonzero()[:, 0]
    likeliest = trainer.model.lm_head(trainer.hidden(row))[:, first : first + 64].argmax(1) + first
    assert torch.equal(read.ids[changed], likeliest[changed - 1])
    assert (row.ids[changed] >= first).all()
    shares = [float((trainer.reading_itself(row, codes, seed).ids != row.ids).sum()) for seed in range(40)]
    assert 0.3 < np.mean(shares) / float((row.ids >= first).sum()) < 0.5


def test_a_run_that_reads_itself_goes_on_as_if_never_stopped(recipe: dict[str, Any], tmp_path: Path) -> None:
    reading = recipe | {"sampled": 0.5}
    train(lm_settings(**reading, out=str(tmp_path / "whole")))
    parts = lm_settings(**reading, out=str(tmp_path / "parts"))
    with stopping_at(5):
        train(parts)
    assert torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=True)["step"] == 5
    train(parts)
    ends = [torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts")]
    assert all(torch.equal(ends[1]["model"][name], tensor) for name, tensor in ends[0]["model"].items())
    with pytest.raises(LlasaError, match="cannot be combined"):
        train(lm_settings(**reading, shard=True, out=str(tmp_path / "shared")))


def chat(folder: Path, count: int = 4) -> Path:
    talk = (
        '{{"messages": [{{"role": "user", "content": "the cat {0}"}}, {{"role": "assistant", "content": "sat {0}"}}]}}'
    )
    path = folder / "chat.jsonl"
    path.write_text("\n".join(talk.format("the " * (i % 4)) for i in range(count)))
    return path


def test_a_folder_has_one_writer(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "lm"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        with pytest.raises(LlasaError, match=rf"process {holder.pid} on .* is writing into"):
            train(lm_settings(**recipe, out=str(out)))
        assert sorted(path.name for path in out.iterdir()) == [".lock"]
        holder.kill()
    with claimed(out):  # what the dead one left is no lock
        pass


@pytest.mark.parametrize(("stage", "name"), [("recogniser", "tiny/recogniser.yaml"), ("codec", "xcodec2/codec.yaml")])
def test_the_other_stages_claim_their_folders_too(stage: str, name: str, tmp_path: Path) -> None:
    recipe = Path(__file__).parents[3] / "recipes" / name
    changed = tmp_path / "stage.yaml"
    changed.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"out": str(tmp_path / "out")}))
    with claimed(tmp_path / "out"), pytest.raises(SystemExit) as ended:
        main(["train", stage, str(changed)])
    assert ended.value.code == 1


def test_a_full_disk_keeps_the_last_good_checkpoint(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lm"
    train(lm_settings(**(recipe | {"steps": 3}), out=str(out)))
    before = (out / CHECKPOINT).read_bytes()
    (out / f".{CHECKPOINT}.tmp").symlink_to("/dev/full")
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(nest(LMSettings, recipe | {"out": str(out)})))
    with pytest.raises(SystemExit) as ended:
        main(["train", "lm", str(path), "--threads", "1"])
    assert ended.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the last good checkpoint is kept: make room" in error
    assert (out / CHECKPOINT).read_bytes() == before
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]
    train(lm_settings(**recipe, out=str(out)))  # there is room again
    assert torch.load(out / CHECKPOINT, weights_only=True)["step"] == 12


def test_a_loss_that_is_no_number_stops_the_run(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lm"
    train(lm_settings(**(recipe | {"steps": 3}), out=str(out)))
    saved = torch.load(out / CHECKPOINT, weights_only=True)
    saved["model"]["model.model.norm.weight"][0] = float("nan")
    torch.save(saved, out / CHECKPOINT)
    before = (out / CHECKPOINT).read_bytes()
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(nest(LMSettings, recipe | {"out": str(out)})))
    with pytest.raises(SystemExit) as ended:
        main(["train", "lm", str(path), "--threads", "1"])
    assert ended.value.code == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("is nan at step 4; the last good checkpoint is kept: " + LOWER)
    )
    assert (out / CHECKPOINT).read_bytes() == before


def test_a_recipes_new_rates_are_taken_on_the_way(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "lm"
    train(lm_settings(**(recipe | {"steps": 3, "lr": 1e-3, "muon_lr": 1e-3}), out=str(out)))
    train(lm_settings(**(recipe | {"steps": 4, "lr": 1e-4, "muon_lr": 2e-4, "decay": 0.5}), out=str(out)))
    states = torch.load(out / CHECKPOINT, weights_only=True)["optimisers"]
    groups = [group for state in states for group in state["param_groups"]]
    assert [group["peak"] for group in groups] == [1e-4, 1e-4, 2e-4]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0, 0.5]


def test_what_must_stay_is_told_in_a_line(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "lm"
    train(lm_settings(**(recipe | {"steps": 2}), out=str(out)))
    before = (out / CHECKPOINT).read_bytes()
    changes: dict[str, Any] = {
        "corpus": {next(iter(recipe["corpus"])): 2}, "seed": 1, "tokens": 300, "joined": 0.1, "muon_lr": 0,
        "model": recipe["model"] | {"hidden_size": 48}, "factored": False,
    }  # fmt: skip
    for key, value in changes.items():
        with pytest.raises(
            LlasaError, match=rf"lm was begun with `{dotted(LMSettings, key)}: .*`, which must stay until its end"
        ):
            train(lm_settings(**(recipe | {key: value}), out=str(out)))
    assert (out / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_in_parts_keeps_to_the_same(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = recipe | {"shard": True, "factored": False, "muon_lr": 0, "pointing_heads": []}
    train(lm_settings(**(plain | {"steps": 2, "lr": 1e-3}), out=str(tmp_path)))
    with pytest.raises(LlasaError, match=r"was begun with `schedule\.seed: 0`, which must stay"):
        train(lm_settings(**(plain | {"seed": 1}), out=str(tmp_path)))
    made = []
    monkeypatch.setattr(lm_run, "scheduled_optimisers", lambda *a: made.append(scheduled_optimisers(*a)) or made[-1])
    train(lm_settings(**(plain | {"steps": 3, "lr": 1e-4}), out=str(tmp_path)))
    assert {group["peak"] for one in made[-1] for group in one.param_groups} == {1e-4}


def test_validation_says_what_is_kept_of_text(recipe: dict[str, Any], tmp_path: Path) -> None:
    wanted = recipe | {"steps": 2, "chat": {str(chat(tmp_path, 60)): 1}}
    train(lm_settings(**wanted, out=str(tmp_path / "lm")))
    validated = json.loads((tmp_path / "lm/log.jsonl").read_text().splitlines()[-1])
    assert validated.keys() == {"step", "loss", "text", "pointing_right"}
    assert validated["text"] > 0


def test_a_model_of_another_size_is_told_in_a_line(recipe: dict[str, Any], tmp_path: Path) -> None:
    """What no setting tells; a pretrained folder that was replaced, for instance."""
    train(lm_settings(**(recipe | {"steps": 2}), out=str(tmp_path)))
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    saved["model"]["model.model.norm.weight"] = torch.ones(5)
    torch.save(saved, tmp_path / CHECKPOINT)
    with pytest.raises(LlasaError, match="has the checkpoint of another recipe"):
        train(lm_settings(**recipe, out=str(tmp_path)))


def test_an_average_asked_for_later_begins_with_the_weights(recipe: dict[str, Any], tmp_path: Path) -> None:
    train(lm_settings(**(recipe | {"steps": 2, "ema": 0}), out=str(tmp_path)))
    trained = torch.load(tmp_path / CHECKPOINT, weights_only=True)["model"]
    train(lm_settings(**(recipe | {"steps": 2, "ema": 0.9}), out=str(tmp_path)))
    train(lm_settings(**(recipe | {"steps": 3, "ema": 0.9, "lr": 1e-9, "muon_lr": 1e-9}), out=str(tmp_path)))
    average = torch.load(tmp_path / CHECKPOINT, weights_only=True)["average"]
    assert all(torch.allclose(weight, trained[name], atol=1e-4) for name, weight in average.items())


def test_codes_of_another_codec_are_refused_at_the_start(
    recipe: dict[str, Any], tmp_path: Path, codec_folder: Path
) -> None:
    other = make_codec_folder(tmp_path / "other", seed=1)
    corpus = Path(next(iter(recipe["corpus"])))
    (corpus / JOB).write_text(json.dumps({"codes": codes_of(codec_folder)}))
    try:
        with pytest.raises(LlasaError, match="holds codes of another codec"):
            train(lm_settings(**(recipe | {"codec": str(other)}), out=str(tmp_path / "lm")))
    finally:
        (corpus / JOB).unlink()


def test_a_disk_that_is_still_full_is_told_again(recipe: dict[str, Any], tmp_path: Path) -> None:
    """The same command before there is room: the log's rows cannot be put right."""
    train(lm_settings(**(recipe | {"steps": 2}), out=str(tmp_path)))
    (tmp_path / ".log.jsonl.tmp").symlink_to("/dev/full")
    with pytest.raises(LlasaError, match="No space left on device; the last good checkpoint is kept: make room"):
        train(lm_settings(**recipe, out=str(tmp_path)))


def test_a_corpus_that_all_lies_in_one_kind_of_row_packs_full(tmp_path: Path) -> None:
    """Over 97 % of a preset's row is samples, of utterances as long as corpora have them."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": str(i), "text": "a " * 40, "codes": np.zeros(int(size), dtype=np.uint16), "speaker": "",
            "language": "en", "seconds": size / 50, "phones": [], "ends": [],
        }
        for i, size in enumerate(rng.gamma(3.0, 130, 400).clip(50, 1800))
    ]  # fmt: skip
    write_shard(tmp_path / "0.parquet", rows, CODES_SCHEMA)
    from llasa.text.lexicon import ALPHABET
    from llasa.vocabulary import character_tokenizer, read_vocabulary

    reader = Reader(read_vocabulary(character_tokenizer(ALPHABET, 64, context=2048)), None, 50.0)
    for tokens in (4096, 16384):
        stream = packs(samples(Corpus({tmp_path: 1}), reader, 0, 2048, 0.0, sample_indices([], 0, 1)), tokens, 50.0, 1)
        taken = [next(stream) for _ in range(12)]
        useful = sum(int((pack.ids != 1).sum()) for pack in taken) / (12 * tokens)
        assert useful > 0.97
