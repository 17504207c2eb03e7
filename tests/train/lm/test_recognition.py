"""Rows of recognition: speech in, text out, where each letter is heard, and their share of the training."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nested import lm_settings
from official import llama3_tokenizer
from small_models import make_lm

from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.models.folder import read_config
from llasa.text.lexicon import ALPHABET
from llasa.train.lm.alignment import LATE, UNKNOWN, listen
from llasa.train.lm.data import Corpus, Reader, Sample, pack, packs, samples
from llasa.train.lm.run import backward
from llasa.train.lm.stage import Trainer, save_model
from llasa.train.processes import make_accelerator
from llasa.vocabulary import character_tokenizer, read_vocabulary

LEXICON = {"the": "ðə", "cat": "KæT", "sat": "SæT"}
VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))
READER = Reader(VOCABULARY, LEXICON, 50.0, recognition=1.0)
NAMES = {"ð": "dh", "ə": "ax", "K": "k", "æ": "ae", "T": "t", "S": "s"}


def row(text: str, speaker: str = "a", seed: int = 0) -> dict[str, Any]:
    """An utterance whose phones last 0.1 s, five codes, each."""
    phones = ["pau", *(NAMES[c] for c in READER.text(text) if c in NAMES), "pau"]
    codes = np.random.default_rng(seed).integers(0, 64, len(phones) * 5)
    return {
        "id": f"{speaker}{seed}", "text": text, "codes": codes, "speaker": speaker, "language": "en",
        "seconds": len(codes) / 50, "phones": phones, "ends": [0.1 * (i + 1) for i in range(len(phones))],
    }  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rows = [row("The cat sat." if i % 2 else "the cat", f"s{i}", i) for i in range(40)]
    write_shard(tmp_path / "0.parquet", rows, CODES_SCHEMA)
    return Corpus({tmp_path: 1})


def test_the_row_is_upstreams_with_the_loss_on_the_text() -> None:
    """As the template of an official tokenizer lays it out; the text is left as it is."""
    vocabulary = read_vocabulary(llama3_tokenizer(64))
    one = {"text": "The train, it's late.", "codes": np.array([5, 63]), "speaker": ""}
    sample = Reader(vocabulary, None, 50.0, recognition=1.0).sample([one], random.Random(0))
    speech = "<|SPEECH_UNDERSTANDING_START|><|s_5|><|s_63|><|SPEECH_UNDERSTANDING_END|>"
    chat = [
        {"role": "user", "content": f"Convert the speech to text:{speech}"},
        {"role": "assistant", "content": "<|TEXT_GENERATION_START|>The train, it's late.<|TEXT_GENERATION_END|>"},
    ]
    whole = vocabulary.tokenizer.apply_chat_template(
        chat, tokenize=True, return_dict=False, continue_final_message=True
    )
    assert sample.ids.tolist() == whole
    assert sample.chat is not None
    told = vocabulary.tokenizer.decode(sample.ids[sample.chat])
    assert told == "The train, it's late.<|TEXT_GENERATION_END|>"


def heard(texts: list[str]) -> tuple[Sample, str, int]:
    """A sample, its text, and where its codes begin."""
    sample = READER.heard([row(text, seed=i) for i, text in enumerate(texts)])
    assert sample.chat is not None
    told = "".join(VOCABULARY.tokenizer.convert_ids_to_tokens(sample.ids[sample.chat].tolist()))
    return sample, told, sample.ids.tolist().index(READER.opened) + 1


def test_a_model_that_reads_phones_writes_plain_letters() -> None:
    sample, told, _ = heard(["The cat's sat, two."])
    assert told == "the cats sat two<|TEXT_GENERATION_END|>"
    assert heard(["Cat 2!"])[1] == "cat two<|TEXT_GENERATION_END|>"
    assert sample.phones is not None
    assert (sample.pointers == UNKNOWN).any()


def test_each_letter_points_at_the_code_where_it_can_be_told() -> None:
    """Also in joined utterances, whose codes lie behind one another."""
    sample, told, first = heard(["the cat", "cat sat."])
    letters = told.removesuffix("<|TEXT_GENERATION_END|>")
    assert letters == "the cat cat sat"
    begin = len(sample.ids) - len(letters) - 2  # of the token before the first letter
    places = (sample.pointers[begin : begin + len(letters) + 1] - first).tolist()
    # The pauses, and each phone, last five codes: "the" begins with the recording, "cat" after it and two phones.
    assert places[0] == LATE
    assert places[4] == 15 + LATE
    # The second recording begins after 35 codes, with "cat"; "sat" follows after a pause and three phones.
    assert places[8] == 35 + LATE
    assert places[12] == 35 + 20 + LATE
    assert places == sorted(places)
    assert places[-1] == 35 + 40 - 1  # the end, where the last code is


def test_each_code_names_the_phone_heard_a_little_before() -> None:
    sample, _, first = heard(["the cat"])
    assert sample.phones is not None
    named = VOCABULARY.tokenizer.convert_ids_to_tokens(sample.phones[first : first + 35].tolist())
    late = "".join(named)[LATE:]
    assert late == ("ð" * 10 + "ə" * 5 + "K" * 5 + "æ" * 5 + "T" * 5 + " " * 5)[: len(late)]
    assert (sample.phones[:first] == UNKNOWN).all()


def test_texts_of_unequal_words_are_not_aligned() -> None:
    one = row("the cat")
    assert listen("ðə KæT", "the", one["phones"], one["ends"], 35, 50.0) is None
    assert heard(["the cat"])[0].phones is not None
    without = READER.heard([row("the cat") | {"phones": [], "ends": []}])
    assert without.phones is None
    assert (without.pointers == UNKNOWN).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_samples_is_heard(corpus: Corpus, share: float) -> None:
    reader = Reader(VOCABULARY, LEXICON, 50.0, recognition=share)
    found = list(itertools.islice(samples(corpus, reader, 0, 400, 0.0, itertools.count()), 200))
    assert sum(sample.chat is not None for sample in found) / 200 == pytest.approx(
        share, abs=0.1 if 0 < share < 1 else 0
    )


def test_without_recognition_samples_are_those_of_before(corpus: Corpus) -> None:
    """Resuming a run, or repeating one, gives the same rows."""
    plain, other = Reader(VOCABULARY, LEXICON, 50.0, 0.5), Reader(VOCABULARY, LEXICON, 50.0, 0.5, 0.0)
    both = [itertools.islice(samples(corpus, r, 0, 400, 0.5, itertools.count()), 20) for r in (plain, other)]
    assert all((a.ids == b.ids).all() for a, b in zip(*both, strict=True))


def test_losses_are_means_over_letters_and_over_codes(corpus: Corpus) -> None:
    source = samples(corpus, Reader(VOCABULARY, LEXICON, 50.0, recognition=0.5), 0, 400, 0.0, itertools.count())
    row_ = next(packs(source, 900, 50.0, 1))
    model = make_lm(len(VOCABULARY.tokenizer))
    trainer = Trainer(model, lm_settings(pointing_heads=[[1, 2]])).eval()
    terms = trainer(row_)
    assert row_.phones is not None
    hidden = trainer.hidden(row_)
    logits, named = model.lm_head(hidden), row_.phones >= 0
    text = F.cross_entropy(logits[row_.chat], row_.labels[row_.chat])
    torch.testing.assert_close(terms["text"], text)
    table = logits[named][:, : int(row_.phones.max()) + 1]
    torch.testing.assert_close(terms["phones"], F.cross_entropy(table, row_.phones[named]))
    assert terms["pointing"] > 0


def test_a_step_learns_from_everything_by_its_weight(corpus: Corpus) -> None:
    source = samples(corpus, Reader(VOCABULARY, LEXICON, 50.0, recognition=0.5), 0, 400, 0.0, itertools.count())
    row_ = next(packs(source, 900, 50.0, 1))
    settings = lm_settings(pointing_heads=[[1, 2]], pointing_weight=0.5, phone_weight=0.25)
    trainer = Trainer(make_lm(len(VOCABULARY.tokenizer)), settings).train()
    accelerator = make_accelerator()
    found = backward(settings, accelerator, trainer, [row_])
    got = {name: p.grad.clone() for name, p in trainer.named_parameters() if p.grad is not None}
    trainer.zero_grad()
    terms = trainer(row_)
    counts = [int(((row_.labels >= 0) & ~row_.chat).sum()), int(row_.chat.sum())]
    shares = [count / sum(counts) for count in counts]
    whole = shares[0] * terms["speech"] + shares[1] * terms["text"] + 0.5 * terms["pointing"] + 0.25 * terms["phones"]
    whole.backward()
    for name, p in trainer.named_parameters():
        torch.testing.assert_close(got[name], p.grad, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(
        found, torch.stack([terms[n] for n in ("speech", "text", "pointing", "phones")]).detach()
    )


def test_a_row_of_speech_alone_has_none_of_it(corpus: Corpus) -> None:
    sample = Reader(VOCABULARY, LEXICON, 50.0).sample([row("the cat")], random.Random(0))
    row_ = pack([sample], 100, 50.0, pad=1)
    assert row_.phones is None
    assert set(Trainer(make_lm(len(VOCABULARY.tokenizer)), lm_settings()).eval()(row_)) == {"speech"}


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_saved_model_says_whether_it_learnt_to_listen(tmp_path: Path, share: float) -> None:
    settings = lm_settings(recognition=share, codec="../codec", out=str(tmp_path))
    save_model(make_lm(len(VOCABULARY.tokenizer)), VOCABULARY, settings, tmp_path / "model")
    assert read_config(tmp_path / "model").get("recognition", False) == (share > 0)
