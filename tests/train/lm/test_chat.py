"""Conversations mixed into the training: what the loss is on, and where a run goes on."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nested import lm_settings
from official import llama3_tokenizer
from small_models import make_lm
from transformers import LlamaForCausalLM

from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.errors import LlasaError
from llasa.train.lm.chat import conversation, open_chat
from llasa.train.lm.data import Corpus, Reader, pack, packs, sample_indices, samples
from llasa.train.lm.run import backward
from llasa.train.lm.stage import Trainer
from llasa.train.lm.validation import validate
from llasa.train.processes import make_accelerator
from llasa.vocabulary import read_vocabulary

VOCABULARY = read_vocabulary(llama3_tokenizer(64))
TOKENIZER = VOCABULARY.tokenizer
TALK = [
    {"role": "user", "content": "What is late?"},
    {"role": "assistant", "content": "The train."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "It came."},
]


def jsonl(path: Path, talks: list[Any]) -> Path:
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Corpus:
    """Five utterances once and three conversations twice."""
    rows = [
        {
            "id": str(i), "text": "cat " * (i + 1), "codes": np.random.default_rng(i).integers(0, 64, 30 + 9 * i),
            "speaker": "a", "language": "en", "seconds": 1.0, "phones": [], "ends": [],
        }
        for i in range(5)
    ]  # fmt: skip
    (tmp_path / "codes").mkdir()
    write_shard(tmp_path / "codes/0.parquet", rows, CODES_SCHEMA)
    talks = [[*TALK[:2], {"role": "user", "content": "x" * i}, TALK[3]] for i in range(3)]
    return Corpus({tmp_path / "codes": 1}, chat={str(jsonl(tmp_path / "chat.jsonl", talks)): 2})


def test_the_loss_is_on_what_the_assistant_says() -> None:
    def tokens(text: str) -> list[int]:
        return TOKENIZER.encode(text, add_special_tokens=False)

    ids, targets = conversation(TALK, TOKENIZER)
    assert ids[targets].tolist() == [*tokens("The train.<|eot_id|>"), *tokens("It came.<|eot_id|>")]
    whole = tokens(TOKENIZER.apply_chat_template(TALK, tokenize=False, date_string="26 Jul 2024"))
    assert ids.tolist() == whole
    assert conversation([*TALK, TALK[0]], TOKENIZER)[0].tolist() == whole  # nothing is learnt of the rest


def test_packed_with_speech_a_conversation_has_the_loss_it_has_alone(mixed: Corpus) -> None:
    reader = Reader(VOCABULARY, None, 50.0)
    chosen = [next(samples(mixed, reader, 0, 400, 0.0, [i])) for i in range(11)]
    assert {sample.chat is None for sample in chosen} == {True, False}
    row = pack(chosen, sum(len(sample.ids) for sample in chosen) + 5, 50.0, pad=0)
    model = make_lm(len(TOKENIZER), max_position_embeddings=2048)
    alone = LlamaForCausalLM(copy.deepcopy(model.config)).eval()
    alone.load_state_dict(model.state_dict())
    sums: dict[bool, list[float]] = {True: [], False: []}
    with torch.no_grad():
        terms = Trainer(model, lm_settings()).eval()(row)
        for sample in chosen:
            ids = torch.from_numpy(sample.ids)[None]
            wanted = torch.arange(ids.shape[1]) >= sample.first_target
            wanted = wanted if sample.chat is None else torch.from_numpy(sample.chat)
            losses = torch.nn.functional.cross_entropy(alone(ids).logits[0, :-1], ids[0, 1:], reduction="none")
            sums[sample.chat is None] += losses[wanted[1:]].tolist()
    assert float(terms["speech"]) == pytest.approx(float(np.mean(sums[True])), abs=1e-5)
    assert float(terms["text"]) == pytest.approx(float(np.mean(sums[False])), abs=1e-5)


def test_tokens_of_text_and_of_speech_count_the_same(mixed: Corpus) -> None:
    reader = Reader(VOCABULARY, None, 50.0)
    chosen = [next(samples(mixed, reader, 0, 400, 0.0, [i])) for i in range(8)]
    row = pack(chosen, sum(len(sample.ids) for sample in chosen), 50.0, pad=0)
    settings = lm_settings()
    trainer = Trainer(make_lm(len(TOKENIZER)), settings).train()
    losses = backward(settings, make_accelerator(), trainer, [row])
    got = {name: parameter.grad for name, parameter in trainer.named_parameters()}
    trainer.zero_grad()
    counts = {"speech": int(((row.labels >= 0) & ~row.chat).sum()), "text": int(row.chat.sum())}
    assert counts["speech"] != counts["text"] > 0
    terms = trainer(row)
    assert losses.tolist() == pytest.approx([float(terms["speech"].detach()), float(terms["text"].detach()), 0, 0])
    (sum(terms[name] * count for name, count in counts.items()) / sum(counts.values())).backward()
    for name, parameter in trainer.named_parameters():
        assert torch.allclose(got[name], parameter.grad, atol=1e-6), name


def test_a_pack_of_conversations_alone_has_a_loss(mixed: Corpus) -> None:
    sample = next(
        s for s in samples(mixed, Reader(VOCABULARY, None, 50.0), 0, 400, 0.0, itertools.count()) if s.chat is not None
    )
    trainer = Trainer(make_lm(len(TOKENIZER)), lm_settings()).train()
    terms = trainer(pack([sample], len(sample.ids), 50.0, pad=0))
    assert float(terms["speech"].detach()) == 0
    terms["text"].backward()
    assert np.isfinite(float(terms["text"].detach()))


def test_the_weight_says_how_often_and_the_stream_goes_on(mixed: Corpus) -> None:
    assert len(mixed.order) == 5 + 2 * 3
    reader = Reader(VOCABULARY, None, 50.0)

    def stream(saved: list[tuple[list[int], int]]) -> Any:
        return packs(samples(mixed, reader, 0, 400, 0.5, sample_indices(saved, 0, 1)), 512, 50.0, pad=0)

    whole = stream([])
    rows = [next(whole) for _ in range(8)]
    assert any(row.chat.any() for row in rows)
    again = stream([(rows[3].waiting, rows[3].last)])
    for expected in rows[4:]:
        got = next(again)
        for name in ("ids", "labels", "chat", "positions"):
            assert torch.equal(getattr(got, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("", "cannot read"),
        ("{not json\n", "cannot read"),
        ('{"text": "hello"}\n', "needs `messages`"),
    ],
)
def test_a_source_that_cannot_be_read_says_so(lines: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text(lines)
    with pytest.raises(LlasaError, match=word):
        open_chat(str(tmp_path / "chat.jsonl"))


@pytest.mark.parametrize(
    ("talk", "word"),
    [
        (TALK[:1], "a conversation without an assistant's turn"),
        ([{"role": "user", "content": None}, TALK[1]], "a message without `role` and `content`"),
        (None, "its `messages` are not a list"),
    ],
)
def test_a_conversation_that_teaches_nothing_is_named_at_the_start(talk: Any, word: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "chat.jsonl", [TALK, TALK, talk, TALK])
    with pytest.raises(LlasaError, match=rf"chat.jsonl, row 3: {word}"):
        open_chat(str(path))


def test_no_such_source_says_so(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="cannot read the conversations"):
        open_chat(str(tmp_path / "nowhere"))


def test_every_fiftieth_conversation_is_held_out(tmp_path: Path) -> None:
    talks = [[TALK[0], {"role": "assistant", "content": str(i)}] for i in range(120)]
    chat = {str(jsonl(tmp_path / "chat.jsonl", talks)): 1}
    said = {
        split: [row["chat"][1]["content"] for row in Corpus({}, split=split, chat=chat).rows]
        for split in ("train", "val")
    }
    assert said["val"] == ["49", "99"]
    assert said["train"] == [str(i) for i in range(120) if i not in (49, 99)]


def test_validation_tells_the_loss_of_text_from_that_of_speech(mixed: Corpus, tmp_path: Path) -> None:
    reader = Reader(VOCABULARY, None, 50.0)
    chosen = [next(samples(mixed, reader, 0, 400, 0.0, [i])) for i in range(11)]
    spoken, written = ([s for s in chosen if (s.chat is None) is kind] for kind in (True, False))
    trainer = Trainer(make_lm(len(TOKENIZER), max_position_embeddings=2048), lm_settings()).eval()
    rows = [pack(some, sum(len(s.ids) for s in some), 50.0, pad=0) for some in (chosen, spoken, written)]
    both, speech, text = (validate(trainer, [row], tmp_path, 1) for row in rows)
    assert both["loss"] == pytest.approx(speech["loss"], abs=1e-5)
    assert both["text"] == pytest.approx(text["text"], abs=1e-5)
    assert "text" not in speech
