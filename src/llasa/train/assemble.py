"""Assembles a voice from trained stages: writes the folders that ship, with half-precision weights and presets."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, Wav2Vec2BertForCTC

from llasa import audio
from llasa.codec import load_codec
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.errors import LlasaError
from llasa.files import exists, set_modes
from llasa.models.folder import fingerprint
from llasa.speak.speech import LEVEL
from llasa.text.lexicon import load_lexicon, save_lexicon
from llasa.train.recogniser.stage import save_recogniser
from llasa.train.settings import key
from llasa.voice import Voice

SAMPLING = ("temperature", "top_p", "min_p", "top_k", "repetition_penalty")


@dataclass
class VoiceSettings:
    """Settings of `recipes/*/voice.yaml`: the parts of a voice."""

    runs: str = key("runs", "the folder with the runs `recogniser`, `codec` (or `decoder`) and `lm`")
    corpus: str = key("runs/corpus", "the folder of the corpus that the presets come from")
    sampling: dict[str, float] = key({}, "the voice's default sampling settings", keys=lambda: SAMPLING)
    reuse: bool = key(False, "whether the presets' references are read once for all texts: faster, not quite exact")
    presets: dict[str, str] = key(
        {},
        "names of presets, each with a speaker of the corpus or the id of the utterance that is its reference; the "
        "first is the default",
    )


SHORTEST, LONGEST = 3.0, 6.0  # seconds of a preset's reference


def assemble(settings: VoiceSettings, out: Path) -> None:
    """Writes `out/recogniser`, `out/codec` and `out/lm` (with its voices). Each replaces an older one only as a whole.

    Raises:
        LlasaError: a stage has no model yet.
    """
    runs = Path(settings.runs)
    recogniser = _newest(runs, "recogniser")
    # If the decoder had a run of its own, that codec has the same codes and sounds better.
    codec = _newest(runs, "decoder", "codec")
    lm = _newest(runs, "lm")
    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    save_recogniser(Wav2Vec2BertForCTC.from_pretrained(recogniser, dtype=torch.float32), fresh / "recogniser")
    load_codec(codec).model.half().save_pretrained(fresh / "codec")
    if exists(card := codec / "README.md"):  # the licence of the codec that its training started from
        shutil.copyfile(card, fresh / "codec" / "README.md")
    model = LlamaForCausalLM.from_pretrained(lm, dtype=torch.float32).half()
    model.config.codec = "../codec"
    model.config.default_voice = next(iter(settings.presets), None)
    for name, value in settings.sampling.items():
        setattr(model.generation_config, name, value)
    model.generation_config.do_sample = True
    model.save_pretrained(fresh / "lm")
    AutoTokenizer.from_pretrained(lm).save_pretrained(fresh / "lm")
    if lexicon := load_lexicon(lm):
        save_lexicon(lexicon, fresh / "lm")
    make_voices(fresh, Path(settings.corpus), settings.presets, settings.reuse)
    for part in ("recogniser", "codec", "lm"):
        set_modes(fresh / part, out / part)
        shutil.rmtree(out / part, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        (fresh / part).rename(out / part)
    fresh.rmdir()


def _newest(runs: Path, *stages: str) -> Path:
    """The model of the first of these stages that has one."""
    for stage in stages:
        if exists(runs / stage / "model" / "config.json"):
            return runs / stage / "model"
    raise LlasaError(f"{runs / stages[-1]} has no model yet: train {stages[-1]} first, as recipes/tiny/run does")


def make_voices(folder: Path, corpus: Path, presets: dict[str, str], reuse: bool = False) -> None:
    """Makes the preset voices, from held-out clips rather than trained ones where there are any.

    Args:
        reuse: see `VoiceSettings`.

    Raises:
        LlasaError: the corpus lacks a speaker or utterance that a preset names.
    """
    codec = load_codec(folder / "codec")
    mark = fingerprint(folder / "codec")
    rows = _candidates(corpus / "val", corpus / "train", corpus / "val-real", corpus / "real")
    for name, wanted in presets.items():
        own = [row for row in rows if wanted in (row["speaker"], row["id"])]
        if not own:
            raise LlasaError(
                f"{corpus} has no clip of {wanted} that can be the reference of the preset {name}: "
                "choose another speaker or utterance"
            )
        # Of a speaker's first clips, the one whose length is nearest to the middle of the range.
        row = min(own[:8], key=lambda r: abs(r["seconds"] - (SHORTEST + LONGEST) / 2))
        samples = row_audio(row)
        samples = audio.set_loudness(samples, codec.rate, LEVEL)
        voice = Voice(name, row["text"], codec.encode(samples), mark, reused=reuse)
        voice.save(folder / "lm" / "voices" / f"{name}.safetensors")


def _candidates(*folders: Path) -> list[dict[str, Any]]:
    """Rows of each folder's first shards that can be a reference: of medium length, and a plain sentence."""
    found = (folder for folder in folders if exists(folder))
    rows = [row for folder in found for file in shard_files(folder)[:16] for row in read_rows(file)]
    return [r for r in rows if SHORTEST <= r["seconds"] <= LONGEST and not re.search(r"[^A-Za-z ,.'?!-]", r["text"])]
