"""Runs of the codec: through kills, on two processes, from other codecs; and what happens when something is wrong."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from curves import arguments, curve
from data.corpora import tone
from nested import codec_settings, dotted
from processes import start
from train.codec_recipes import make_recipe
from upstream_codec import hub_tensors, make_upstream, save_original

from llasa.cli import main
from llasa.codec import load_codec
from llasa.train.checkpoint import CHECKPOINT
from llasa.train.codec.quantising import project
from llasa.train.codec.run import train
from llasa.train.codec.settings import CodecSettings
from llasa.train.codec.stage import Trainer
from llasa.train.log import LOWER

STEPS = 12


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_recipe(tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "codec"
    train(codec_settings(**recipe, out=str(out)))
    return out


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """A command that fails; the one line that says why."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


def wait_for(words: str, printed: Path, workers: list[Any]) -> None:
    while words not in (printed.read_text() if printed.exists() else ""):
        assert all(worker.is_alive() for worker in workers), printed.read_text()
        time.sleep(0.02)


def test_each_stage_of_the_losses_starts_where_the_recipe_says(whole: Path) -> None:
    rows = curve(whole)
    assert [step for step, row in rows.items() if "fooling" in row] == list(range(4, STEPS + 1))
    assert [step for step, row in rows.items() if "perceptual" in row] == list(range(6, STEPS + 1))
    assert all({"mel", "stft", "semantic", "entropy", "bound"} <= row.keys() for row in rows.values())
    assert "phone" not in rows[1]  # there is no probe beside this semantic encoder
    assert rows[STEPS]["mel"] < 0.8 * rows[1]["mel"]


def test_a_run_stopped_and_killed_ends_like_one_that_was_not(
    recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    out, printed = tmp_path / "codec", tmp_path / "printed"
    for seen in (2, 6):
        [worker] = start(arguments(recipe, out, "codec", checkpoint_minutes=0.0), 1, printed)
        wait_for(f"codec {seen}/", printed, [worker])
        worker.terminate() if seen == 2 else worker.kill()
        worker.join(120)
        assert worker.exitcode == (0 if seen == 2 else -9), printed.read_text()
    stood = torch.load(out / CHECKPOINT, weights_only=True)["step"]
    assert 5 <= stood < STEPS
    train(codec_settings(**recipe, out=str(out)))
    assert curve(out) == curve(whole)
    ends = [torch.load(folder / CHECKPOINT, weights_only=True) for folder in (out, whole)]
    for part in ("model", "average"):
        assert all(torch.equal(ends[0][part][name], tensor) for name, tensor in ends[1][part].items())
    assert ends[0]["place"] == ends[1]["place"]
    sounds = [load_codec(folder / "model").decode(np.arange(30)) for folder in (out, whole)]
    assert np.array_equal(*sounds)


def test_two_processes_learn_what_one_does_from_their_batches(
    recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    # The decoder, as a latent near the edge between two codes makes two runs differ; without the two terms that are no
    # means over crops, and without what each process draws at random.
    load_codec(whole / "model").model.save_pretrained(tmp_path / "still")
    config = json.loads((tmp_path / "still/config.json").read_text()) | {"activation_dropout": 0.0}
    (tmp_path / "still/config.json").write_text(json.dumps(config))
    plain = recipe | {"start": str(tmp_path / "still"), "stft_weight": 0.0, "frame_weight": 0.0, "lr": 3e-4}
    out, printed = tmp_path / "two", tmp_path / "printed"
    workers = start(arguments(plain, out, "codec"), 2, printed)
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0], printed.read_text()
    assert printed.read_text().count("validation") == 1  # one process speaks
    train(codec_settings(**plain, out=str(tmp_path / "one")))
    two, one = curve(out), curve(tmp_path / "one")
    assert two.keys() == one.keys()
    for step, values in one.items():
        assert two[step].pop("gradient") == pytest.approx(values.pop("gradient"), rel=0.1)
        assert two[step] == pytest.approx(values, abs=1e-3, rel=2e-3), step


def test_batches_that_processes_cannot_share_say_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    workers = start(arguments(recipe | {"shapes": [[20, 3]]}, tmp_path / "codec", "codec"), 2, printed)
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [1, 1]
    assert "2 processes cannot divide the batches of `data.shapes: [[20, 3]]`" in printed.read_text()


@pytest.mark.parametrize("learn", ["decoder", "all"])
def test_from_upstreams_layout_the_decoder_learns_or_all(learn: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    original = save_original(hub_tensors(make_upstream()), tmp_path / "original")
    changes = {
        "semantic_encoder": None,
        "start": str(original),
        "learn": learn,
        "steps": 3,
        "ema": 0,
        "lr": 1e-3,
        "warmup": 1,
    }
    changes["pitch_weight"] = 0  # its codes have no room for it
    out = tmp_path / "codec"
    train(codec_settings(**(recipe | changes), out=str(out)))
    before, after = load_codec(original), load_codec(out / "model")
    states = [dict(codec.model.named_parameters()) for codec in (before, after)]
    moved = {name for name, weight in states[0].items() if not torch.equal(weight, states[1][name])}
    tops = {name.split(".")[0] for name in moved}
    assert not any(name.startswith("semantic_encoder") for name in moved)
    sound = tone(1.0, 1)
    if learn == "decoder":
        assert tops == {"acoustic_decoder", "quantizer"}
        assert np.array_equal(before.encode(sound), after.encode(sound))
    else:
        assert tops == {"acoustic_decoder", "acoustic_encoder", "fc_encoder", "quantizer", "semantic_adapter"}
    codes = before.encode(sound)
    assert not np.array_equal(before.decode(codes), after.decode(codes))


def test_the_licence_of_official_weights_stays_with_what_is_made_of_them(
    recipe: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = tmp_path / "official"
    load_codec(whole / "model").model.save_pretrained(official)
    (official / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    changes = {"semantic_encoder": None, "start": str(official), "steps": 1}
    train(codec_settings(**(recipe | changes), out=str(tmp_path / "tuned")))
    assert f"the weights of {official} are licensed CC BY-NC 4.0" in capsys.readouterr().err
    load_codec(tmp_path / "tuned/model")
    assert f"the weights of {tmp_path / 'tuned/model'} are licensed CC BY-NC 4.0" in capsys.readouterr().err
    assert not (whole / "model/README.md").exists()


def test_the_semantic_encoder_hears_in_training_what_it_hears_later(recipe: dict[str, Any]) -> None:
    """Its config asks for masks and dropped layers, as that of w2v-BERT does, which are for its own training."""
    trainer = Trainer(codec_settings(**recipe, out="")).train()
    wave, features = torch.randn(1, 1, 6400), torch.randn(1, 20, 160)
    found = [project(trainer.codec, wave, features) for _ in range(4)]
    assert all(torch.equal(found[0], other) for other in found)
    assert trainer.codec.acoustic_decoder.training


def test_a_full_disk_keeps_the_last_good_checkpoint(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codec"
    train(codec_settings(**(recipe | {"steps": 2}), out=str(out)))
    before = (out / CHECKPOINT).read_bytes()
    (out / f".{CHECKPOINT}.tmp").symlink_to("/dev/full")
    error = run(arguments(recipe | {"steps": 4}, out, "codec"), capsys)
    assert "the last good checkpoint is kept: make room" in error
    assert (out / CHECKPOINT).read_bytes() == before
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]


def test_a_loss_that_is_no_number_stops_the_run(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codec"
    train(codec_settings(**(recipe | {"steps": 2}), out=str(out)))
    saved = torch.load(out / CHECKPOINT, weights_only=True)
    saved["model"]["codec.acoustic_decoder.norm.weight"][0] = float("nan")
    torch.save(saved, out / CHECKPOINT)
    before = (out / CHECKPOINT).read_bytes()
    error = run(arguments(recipe, out, "codec"), capsys)
    assert error.endswith("is nan at step 3; the last good checkpoint is kept: " + LOWER)
    assert (out / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("`learn` is 'encoder': it must be `decoder` or `all`", {"learn": "encoder"}),
        ("`discriminators.size` is 'big': it must be `small` or `full`", {"discriminators.size": "big"}),
        ("set `sizes.semantic_encoder`", {"semantic_encoder": None}),
        ("`perceptual.at` needs `perceptual.model`", {"perceptual.model": None}),
        ("needs a codec whose levels end in [4, 3, 3], and these are [4, 4, 4]", {"levels": [4, 4, 4]}),
        ("must be a first and a last layer", {"perceptual.layers": [2, 1]}),
        ("has 4 layers and the recipe asks for 22", {"perceptual.layers": [10, 22]}),
        ("`data.shapes` must hold pairs", {"shapes": [[20]]}),
        ("`losses.scales` must hold pairs", {"losses.scales": []}),
        ("`losses.scales` has FFT sizes from 3 to 3: they must lie between 4 and", {"losses.scales": [[3, 1]]}),
        ("`losses.scales` has FFT sizes from 512 to 90000", {"losses.scales": [[512, 40], [90000, 40]]}),
        ("`discriminators.fft_sizes` has FFT sizes from 1 to 78", {"discriminators.fft_sizes": [1, 78]}),
        ("`discriminators.periods` may be at most", {"discriminators.periods": [2, 90000]}),
        ("neither `periods` nor `fft_sizes`", {"discriminators.periods": [], "discriminators.fft_sizes": []}),
        ("there is no folder nowhere", {"semantic_encoder": "nowhere"}),
        ("has 4 layers and the recipe asks for 16", {"tap": 16}),
        ("the recipe's sizes do not fit one another", {"hidden": 65}),
        ("only 16000 Hz and 320 are supported", {"ratios": [8, 5, 4]}),
        ("there is no model called nothing", {"start": "nothing"}),
        ("no recording in the corpus lasts the 2.00 s of the crops", {"shapes": [[100, 1]]}),
        ("no .parquet shards in", {"corpus": ["empty"]}),
        ("no .parquet shards in", {"validation": ["empty"]}),
    ],
)
def test_what_cannot_be_is_one_line(
    words: str, changes: dict[str, Any], recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in run(arguments(recipe | changes, tmp_path / "codec", "codec"), capsys)
    assert not (tmp_path / "codec/model").exists()


def test_a_codec_without_room_for_pitch_is_not_taught_it(
    recipe: dict[str, Any], codec_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"start": str(codec_folder), "learn": "all", "pitch_weight": 1.0}
    error = run(arguments(recipe | changes, tmp_path / "codec", "codec"), capsys)
    assert "needs a codec whose levels end in [4, 3, 3], and these are [4, 4, 4]" in error


def test_a_checkpoint_of_another_recipe_says_so(
    recipe: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / CHECKPOINT).write_bytes((whole / CHECKPOINT).read_bytes())
    for changes in ({"levels": [4, 3, 3]}, {"start": str(whole / "model")}):
        error = run(arguments(recipe | changes | {"steps": 20}, tmp_path / "codec", "codec"), capsys)
        assert "has the checkpoint of another recipe" in error


def test_what_the_crops_follow_from_must_stay_and_rates_may_change(
    recipe: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codec"
    out.mkdir()
    (out / CHECKPOINT).write_bytes((whole / CHECKPOINT).read_bytes())
    for changes in ({"seed": 3}, {"shapes": [[20, 4]]}, {"corpus": recipe["corpus"] * 2}):
        error = run(arguments(recipe | changes | {"steps": 20}, out, "codec"), capsys)
        assert f"codec was begun with `{dotted(CodecSettings, next(iter(changes)))}: " in error
    train(codec_settings(**(recipe | {"steps": STEPS + 1, "lr": 1e-5, "lr_share": 0.5}), out=str(out)))
    states = torch.load(out / CHECKPOINT, weights_only=True)["optimisers"]
    assert {group["peak"] for state in states for group in state["param_groups"]} == {1e-5, 5e-6}


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_loaded(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = run(arguments(recipe | {"shapes": [[300, 10**7]]}, tmp_path / "codec", "codec"), capsys)
    assert "batches of `[300, 10000000]` need about" in error
    assert not (tmp_path / "codec").exists()


def test_probes_of_another_encoder_say_so(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recogniser").mkdir()
    (tmp_path / "recogniser/model").symlink_to(recipe["semantic_encoder"])
    probe = {"phone.weight": torch.zeros(3, 7), "phone.bias": torch.zeros(3)}
    torch.save(probe, tmp_path / "recogniser/probes.pt")
    changes = {"semantic_encoder": str(tmp_path / "recogniser")}
    assert "check that it is of this codec's recogniser" in run(
        arguments(recipe | changes, tmp_path / "c", "codec"), capsys
    )


def test_what_a_run_leaves_is_a_log_and_a_picture(whole: Path) -> None:
    last = json.loads((whole / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == STEPS
    assert {"val/stoi", "used", "perplexity"} <= last.keys()
    assert [path.name for path in (whole / "validation").iterdir()] == ["000012.png"]
