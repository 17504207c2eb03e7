"""A small model that has learnt three phrases of the embedded voice by heart, through the embedded codec."""

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from nested import lm_settings
from small_models import ALPHABET, make_lm

from llasa import audio
from llasa.codec import Codec, load_codec
from llasa.models.hub import find_model
from llasa.reference import LEVEL
from llasa.train.lm.data import Reader, Sample, pack
from llasa.train.lm.stage import Trainer, save_model
from llasa.vocabulary import Vocabulary, character_tokenizer, read_vocabulary
from llasa.voice import Voice

RATE = 16000
STEPS = 180  # enough for probabilities above 0.99
# The beginnings of three presets' references: until which second, and the words said until then.
PHRASES = {
    "alma": (1.4, "next night troutina"),
    "edith": (1.72, "this was not because they were rude"),
    "clara": (1.6, "the police were of opinion"),
}
TINY = find_model("tiny")


@cache
def embedded_codec() -> Codec:
    return load_codec(TINY, device="cpu")


@cache
def phrase(name: str) -> np.ndarray:
    """A phrase as it sounds, (N,) float32."""
    seconds, _ = PHRASES[name]
    codes = Voice.load(TINY / "voices" / f"{name}.safetensors").codes
    return embedded_codec().decode(codes)[: round(seconds * RATE)]


def recording(names: list[str], pause: float = 2.0, before: float = 0.5, seed: int = 0) -> np.ndarray:
    """Phrases with pauses between them, in a room that is nearly silent, (N,) float32."""
    parts = [np.zeros(round(before * RATE), np.float32)]
    for name in names:
        parts += [phrase(name), np.zeros(round(pause * RATE), np.float32)]
    sound = np.concatenate(parts)
    return sound + np.random.default_rng(seed).normal(0, 1e-4, len(sound)).astype(np.float32)


def make_listening_folder(path: Path) -> Path:
    """Trains the model, for a few seconds, and saves it."""

    vocabulary = read_vocabulary(character_tokenizer(ALPHABET, embedded_codec().codebook_size, context=1024))
    model = make_lm(
        len(vocabulary.tokenizer), tie_word_embeddings=True, initializer_range=0.05, max_position_embeddings=1024,
        eos_token_id=vocabulary.end,
    )  # fmt: skip
    settings = lm_settings(recognition=1.0, out=str(path.parent), codec=str(TINY))
    trainer = Trainer(model, settings).train()
    samples = heard_samples(vocabulary)
    learning = torch.optim.AdamW(trainer.parameters(), 6e-3, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.LinearLR(learning, 1.0, 0.02, STEPS)
    dice = random.Random(0)
    for _ in range(STEPS):
        chosen = [blurred(sample, vocabulary, dice) for sample in dice.sample(samples, 3)]
        trainer(pack(chosen, sum(len(sample.ids) for sample in chosen), 50.0, 1))["text"].backward()
        torch.nn.utils.clip_grad_norm_(trainer.parameters(), 1.0)
        learning.step()
        learning.zero_grad()
        falling.step()
    save_model(model.eval(), vocabulary, settings, path)
    return path


def blurred(sample: Sample, vocabulary: Vocabulary, dice: random.Random) -> Sample:
    """The sample with every sixth code another one, so that the phrases are known by more than a few codes."""
    ids = sample.ids.copy()
    for place in np.flatnonzero((ids >= vocabulary.first) & (ids < vocabulary.first + vocabulary.size)):
        if dice.random() < 1 / 6:
            ids[place] = dice.choice(vocabulary.speech)
    return replace(sample, ids=ids)


def heard_samples(vocabulary: Vocabulary) -> list[Sample]:
    """Training rows of the phrases, each as a listener hears it, cut at several places, in two recordings."""
    from llasa.listen.windows import windows

    reader, codec = Reader(vocabulary, None, 50.0, recognition=1.0), embedded_codec()
    texts, sounds = list[str](), list[np.ndarray]()
    for seed in range(1, 3):
        names = random.Random(seed).sample([*PHRASES] * 2, 6)
        sound = recording(names, 2.0, 0.5, seed)
        for name, (start, stop) in zip(names, next(windows(sound, RATE, 12.0)), strict=True):
            # A code lasts 320 samples: wherever the first begins, these are near.
            for shift in range(-160, 160, 64):
                texts.append(PHRASES[name][1])
                sounds.append(audio.set_loudness(sound[start + shift : stop], RATE, LEVEL))
    rows = [{"text": text, "codes": codes} for text, codes in zip(texts, codec.encode_batch(sounds), strict=True)]
    return [reader.sample([row], random.Random(0)) for row in rows]
