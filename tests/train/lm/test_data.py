"""Alignment, samples and packing."""

import copy
import itertools
import random
import sys
import tracemalloc
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nested import lm_settings
from small_models import make_lm
from transformers import LlamaForCausalLM

from llasa.data.shards import AUDIO_SCHEMA, CODES_SCHEMA, write_shard
from llasa.errors import LlasaError
from llasa.text.lexicon import ALPHABET
from llasa.train.lm.data import UNKNOWN, Corpus, Reader, align, pack, packs, sample_indices, samples
from llasa.train.lm.packed import flash_attention, has_varlen_attention, packed_attention, varlen_attention
from llasa.train.lm.stage import Trainer, alike
from llasa.vocabulary import character_tokenizer, read_vocabulary

LEXICON = {"the": "ðə", "cat": "KæT", "sat": "SæT"}
VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))
READER = Reader(VOCABULARY, LEXICON, 50.0)


def row(text: str, speaker: str = "a", seed: int = 0) -> dict[str, Any]:
    """An utterance whose phones last 0.1 s each."""
    names = {"ð": "dh", "ə": "ax", "K": "k", "æ": "ae", "T": "t", "S": "s"}
    phones = ["pau", *(names[c] for c in READER.text(text) if c in names), "pau"]
    ends = [0.1 * (i + 1) for i in range(len(phones))]
    codes = np.random.default_rng(seed).integers(0, 64, len(phones) * 5)
    return {
        "id": f"{speaker}{seed}", "text": text, "codes": codes, "speaker": speaker, "language": "en",
        "seconds": ends[-1], "phones": phones, "ends": ends,
    }  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rows = [row(text, who, i) for i, (text, who) in enumerate([("the cat", "a"), ("cat sat.", "a"), ("the sat", "b")])]
    write_shard(tmp_path / "0.parquet", rows, CODES_SCHEMA)
    return Corpus({tmp_path: 1})


def spoken(text: str, phones: list[str], ends: list[float], frames: int) -> str:
    targets = align(text, phones, np.array(ends), frames, 50.0)
    return "".join((text + "$")[i] for i in targets)


def test_each_frame_points_at_the_phone_it_speaks() -> None:
    one = row("the cat.")
    line = spoken("ðə KæT.", one["phones"], one["ends"], 35)
    assert line == "ðððððððððð" + "əəəəə" + "KKKKK" + "æææææ" + "TTTTT" + "....."


def test_words_in_letters_share_their_frames() -> None:
    one = row("the cat")
    assert spoken("ðə cat", one["phones"], one["ends"], 35)[15:30] == "cccccaaaaattttt"


def test_the_pause_at_the_end_points_behind_the_text() -> None:
    one = row("the cat")
    assert spoken("ðə KæT", one["phones"], one["ends"], 35).endswith("TTTTT$$$$$")


def test_a_neural_teachers_phones_are_merged_and_its_spaces_and_marks_are_pauses() -> None:
    """One entry a character of espeak-ng's IPA, as Kokoro tells how long each lasts: here 20 ms, a frame, each."""
    phones = ["pau", *"ðə tʃˈeɪndʒ, lˈɔː.", "pau"]
    ends = [0.02 * (i + 1) for i in range(len(phones))]
    line = spoken("ðə CˈENJ, Lˈɔ.", phones, ends, len(phones))
    assert line == "ð" + "ðə " + "CCˈEENJJ" + ",," + "Lˈɔɔ" + ".."
    assert spoken("ðə change, Lˈɔ.", phones, ends, len(phones)) == "ð" + "ðə " + "cchaagee" + ",," + "Lˈɔɔ" + ".."


def test_british_vowels_find_the_american_ones() -> None:
    phones = ["pau", *"ɡˈəʊ weə", "pau"]
    ends = [0.02 * (i + 1) for i in range(len(phones))]
    assert spoken("GˈO WɛR", phones, ends, len(phones)) == "GGˈOO WɛɛR"  # the pause takes the R that it did not say


def test_a_sample_has_the_loss_from_the_start_token_on() -> None:
    sample = READER.sample([row("the cat")], random.Random(0))
    assert sample.ids[sample.first_target] == VOCABULARY.start
    assert sample.ids[-1] == VOCABULARY.end
    assert VOCABULARY.codes(sample.ids).tolist() == row("the cat")["codes"].tolist()


def test_pointers_of_joined_utterances_name_the_right_characters() -> None:
    sample = READER.sample([row("the cat"), row("cat sat.")], random.Random(0))
    texts = VOCABULARY.tokenizer.convert_ids_to_tokens(sample.ids[sample.pointers[sample.pointers != UNKNOWN]])
    first, second = texts[:35], texts[35:]
    assert "".join(first[10:30]) == "əəəəəKKKKKæææææTTTTT"
    assert first[30:] == [" "] * 5
    assert "".join(second[5:]) == "KKKKKæææææTTTTTSSSSSæææææTTTTT....."


def test_joined_utterances_are_of_one_speaker(corpus: Corpus) -> None:
    stream = samples(corpus, READER, 1, 400, 0.7, itertools.count())
    by_speaker = {"a": set(), "b": set()}  # type: dict[str, set[int]]
    for item in corpus.rows:
        by_speaker[item["speaker"]].add(int(item["codes"][0]) * 64 + int(item["codes"][1]))
    lengths = set()
    for _ in range(40):
        sample = next(stream)
        codes = VOCABULARY.codes(sample.ids).tolist()
        lengths.add(len(codes))
        pairs = {a * 64 + b for a, b in itertools.pairwise(codes)}
        heard = {who for who, starts in by_speaker.items() if pairs & starts}
        assert len(heard) == 1
    assert len(lengths) > 2  # some alone, some joined


def test_no_utterance_is_joined_with_itself(corpus: Corpus) -> None:
    """Speaker a has two utterances, b one: no sample says more, however often it is joined."""
    starts = [row_["codes"].tolist() for row_ in corpus.rows]
    stream = samples(corpus, READER, 1, 400, 1.0, itertools.count())
    for _ in range(30):
        codes = VOCABULARY.codes(next(stream).ids).tolist()
        assert codes in (starts[0] + starts[1], starts[1] + starts[0], starts[2])


def test_a_shard_needs_no_alignment(tmp_path: Path) -> None:
    """The six columns that the docs name, as another program writes them."""
    table = pa.Table.from_pylist([row("the cat")], schema=CODES_SCHEMA).drop_columns(["phones", "ends"])
    pq.write_table(table, tmp_path / "0.parquet")
    sample = next(samples(Corpus({tmp_path: 1}), READER, 0, 400, 0.0, itertools.count()))
    assert VOCABULARY.codes(sample.ids).tolist() == row("the cat")["codes"].tolist()
    assert (sample.pointers == UNKNOWN).all()


def test_shards_of_audio_are_no_corpus_of_codes(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.parquet", [row("the cat") | {"audio": b"fLaC"}], AUDIO_SCHEMA)
    with pytest.raises(LlasaError, match="holds audio, not codes: run `llasa data encode`"):
        Corpus({tmp_path: 1})


def test_a_corpus_stays_on_disk(tmp_path: Path) -> None:
    """A row is read when it is asked for, from files that are mapped: of 1.6 MB of codes next to none are in memory."""
    codes = np.arange(2000) % 64
    for shard in range(4):
        rows = [row("the cat", f"s{shard}", i) | {"codes": codes + shard} for i in range(100)]
        write_shard(tmp_path / f"{shard}.parquet", rows, CODES_SCHEMA)
    Corpus({tmp_path: 1})
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    corpus = Corpus({tmp_path: 1})
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held + pa.total_allocated_bytes() - before < 400_000
    assert [int(corpus.rows[i]["codes"][0]) for i in (0, 99, 100, 399)] == [0, 0, 1, 3]
    assert list(corpus.speakers["s2"]) == list(range(200, 300))


def test_validation_reads_no_more_shards_than_it_needs(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "1.parquet").write_bytes(b"never opened")
    assert len(Corpus({tmp_path: 1}, limit=2).rows) == 2
    with pytest.raises(LlasaError, match=r"1.parquet is not a whole Parquet shard"):
        Corpus({tmp_path: 1})


def test_a_weight_says_how_often_a_round_takes_an_utterance(corpus: Corpus, tmp_path: Path) -> None:
    heavy = Corpus({tmp_path: 3})
    assert len(heavy.rows) == len(corpus.rows) == 3
    assert sorted(heavy.order) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_packs_are_full_and_hold_whole_samples(corpus: Corpus) -> None:
    stream = packs(samples(corpus, READER, 0, 300, 0.5, itertools.count()), 512, 50.0, pad=1)
    for _ in range(5):
        row_ = next(stream)
        assert len(row_.ids) == 512
        ends = (row_.ids == VOCABULARY.end).sum()
        assert ends in (len(row_.bounds) - 1, len(row_.bounds) - 2)
        assert (row_.ids == 1).sum() < 512 * 0.2


def test_a_round_takes_every_utterance_once(corpus: Corpus) -> None:
    stream = samples(corpus, READER, 0, 300, 0.0, itertools.count())
    rounds = [[VOCABULARY.codes(next(stream).ids).tobytes() for _ in range(3)] for _ in range(8)]
    assert all(set(once) == {row_["codes"].tobytes() for row_ in corpus.rows} for once in rounds)
    assert len(set(map(tuple, rounds))) > 1  # in another order each time


@given(processes=st.integers(1, 4), later=st.integers(1, 4), taken=st.integers(0, 6), seed=st.integers(0, 99))
def test_processes_share_the_samples_and_go_on_where_they_stopped(
    processes: int, later: int, taken: int, seed: int
) -> None:
    """Whatever was waiting when a run stopped comes first, nothing comes twice, whoever goes on."""
    rng = random.Random(seed)
    saved, used = [], []
    for process in range(processes):
        made = list(itertools.islice(sample_indices([], process, processes), taken + 3))
        waiting = sorted(rng.sample(made, 3))
        used += [index for index in made if index not in waiting]
        saved.append((waiting, made[-1]))
    streams = [list(itertools.islice(sample_indices(saved, p, later), 30)) for p in range(later)]
    after = [index for stream in streams for index in stream]
    assert len(set(after + used)) == len(after + used)
    assert {index for waiting, _ in saved for index in waiting} <= set(after)
    if later == processes:
        for stream, (waiting, last) in zip(streams, saved, strict=True):
            assert stream[:4] == [*waiting, last + processes]


def test_a_stream_goes_on_from_what_its_last_pack_says(corpus: Corpus) -> None:
    def stream(saved: list[tuple[list[int], int]]) -> Any:
        return packs(samples(corpus, READER, 0, 300, 0.5, sample_indices(saved, 1, 2)), 512, 50.0, pad=1)

    whole = stream([])
    rows = [next(whole) for _ in range(12)]
    for stop in (0, 3, 7):
        again = stream([([], 0), (rows[stop].waiting, rows[stop].last)])
        for expected in rows[stop + 1 :]:
            got = next(again)
            assert torch.equal(got.ids, expected.ids)
            assert torch.equal(got.pointers, expected.pointers)
            assert (got.waiting, got.last) == (expected.waiting, expected.last)


def test_a_corpus_that_cannot_be_read_says_so(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="longest"):
        next(samples(corpus, READER, 0, 20, 0.5, itertools.count()))
    (tmp_path / "silent").mkdir()
    write_shard(tmp_path / "silent/0.parquet", [row("the cat") | {"text": ""}], CODES_SCHEMA)
    with pytest.raises(LlasaError, match="silent has a text"):
        Corpus({tmp_path / "silent": 1})


def test_a_packed_row_computes_what_its_samples_compute_alone(corpus: Corpus) -> None:
    stream = samples(corpus, READER, 0, 300, 0.5, itertools.count())
    chosen = [next(stream) for _ in range(3)]
    row_ = pack(chosen, sum(len(s.ids) for s in chosen) + 9, 50.0, pad=1)
    model = make_lm(len(VOCABULARY.tokenizer))
    reference = LlamaForCausalLM(copy.deepcopy(model.config)).eval()
    reference.load_state_dict(model.state_dict())
    trainer = Trainer(model, lm_settings(pointing_heads=[[0, 1], [1, 2]])).eval()
    with torch.no_grad():
        packed = float(trainer(row_)["speech"])
        total, count = 0.0, 0
        for sample in chosen:
            ids = torch.from_numpy(sample.ids)[None]
            labels = ids.clone()
            labels[:, : sample.first_target] = -100
            n = int((labels >= 0).sum())
            total += float(reference(ids, labels=labels).loss) * n
            count += n
    assert packed == pytest.approx(total / count, abs=1e-5)


def attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, causal: bool, scale: float
) -> torch.Tensor:
    """Attention inside samples of tensors (T, heads, D), for which the kernels on a GPU are."""
    assert q.dtype == k.dtype == v.dtype == torch.bfloat16
    assert starts.dtype == torch.int32
    sample = torch.bucketize(torch.arange(len(q)), starts, right=True)
    seen = (sample[:, None] == sample) & torch.ones(len(q), len(q), dtype=torch.bool).tril(0 if causal else len(q))
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1).float() for t in (k, v))
    logits = torch.einsum("qhd,khd->hqk", q.float(), k) * scale
    weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).bfloat16()


def flash_attn_varlen_func(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int, max_seqlen_k: int, softmax_scale: float | None = None, causal: bool = False,
) -> torch.Tensor:  # fmt: skip
    """With flash-attn's documented arguments."""
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
    return attended(q, k, v, cu_seqlens_q, causal, softmax_scale or q.shape[-1] ** -0.5)


def varlen_attn(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seq_q: torch.Tensor, cu_seq_k: torch.Tensor,
    max_q: int, max_k: int, *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:  # fmt: skip
    """With those of torch's own that are used here; without `enable_gqa`, which 2.11 has not, heads must be as many."""
    assert query.shape[1] == key.shape[1] == value.shape[1]
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert max_q == max_k == int(cu_seq_q.diff().max())
    assert window_size in ((-1, 0), (-1, -1))
    return attended(query, key, value, cu_seq_q, window_size == (-1, 0), scale or query.shape[-1] ** -0.5)


@pytest.mark.parametrize("kernel", [flash_attention, varlen_attention])
def test_a_kernel_is_asked_for_the_same(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    query, key, value = (torch.randn(1, heads, 40, 8) for heads in (4, 2, 2))
    value, bounds = value.bfloat16(), [0, 7, 30, 40]
    starts = torch.tensor(bounds, dtype=torch.int32)
    expected, _ = packed_attention(torch.nn.Module(), query, key, value.float(), None, bounds, starts, scaling=0.3)
    got = kernel(query, key, value, starts, 23, 0.3)
    assert got.shape == expected.shape
    assert torch.allclose(got.float(), expected, atol=0.03)


def test_torchs_kernel_is_used_where_it_works_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    with torch.no_grad():
        assert has_varlen_attention.__wrapped__(torch.device("cpu"))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda *a, **k: varlen_attn(*a, scale=0.1))
    assert not has_varlen_attention.__wrapped__(torch.device("cpu"))  # looks ahead
    monkeypatch.undo()
    assert not has_varlen_attention.__wrapped__(torch.device("cpu"))


def test_pointing_scores_are_the_heads_own_attention(corpus: Corpus) -> None:
    """The loss must be on what the model computes: compare with transformers' eager attention weights."""
    sample = next(samples(corpus, READER, 0, 300, 0.0, itertools.count()))
    row_ = pack([sample], len(sample.ids), 50.0, pad=1)
    model = make_lm(len(VOCABULARY.tokenizer))
    eager = LlamaForCausalLM._from_config(copy.deepcopy(model.config), attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    trainer = Trainer(model, lm_settings(pointing_heads=[[1, 2]])).eval()
    with torch.no_grad():
        trainer.hidden(row_)
        ours = trainer.scores(1, 2, torch.arange(len(sample.ids))[None]).softmax(-1)[0]
        theirs = eager(row_.ids[None], output_attentions=True).attentions[1][0, 2]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_pointing_is_the_mean_over_all_frames_of_all_samples(corpus: Corpus) -> None:
    """Batched, padded and in groups it is what one sample after another gives."""
    stream = samples(corpus, READER, 0, 300, 0.5, itertools.count())
    chosen = [next(stream) for _ in range(6)]
    chosen[2] = replace(chosen[2], pointers=np.full(len(chosen[2].ids), UNKNOWN))  # real speech
    row_ = pack(chosen, sum(len(s.ids) for s in chosen) + 9, 50.0, pad=1)
    trainer = Trainer(make_lm(len(VOCABULARY.tokenizer)), lm_settings(pointing_heads=[[0, 1], [1, 2]]))
    losses, frames = [], 0
    with torch.no_grad():
        found = trainer(row_)["pointing"]
        trainer.hidden(row_)
        for a, sample in zip(row_.bounds, chosen, strict=False):
            known = sample.pointers >= 0
            where = torch.arange(a, a + len(sample.ids))[None]
            for layer, head in trainer.settings.losses.pointing_heads:
                scores = trainer.scores(layer, head, where)[0][known]
                losses.append(F.cross_entropy(scores, torch.from_numpy(sample.pointers[known]), reduction="sum"))
            frames += int(known.sum())
    assert row_.taught == [0, 1, 3, 4, 5]
    assert float(found) == pytest.approx(float(sum(losses)) / frames / 2, abs=1e-5)
    assert 1 < len(list(alike(row_))) < 5


def test_a_pack_without_pointers_has_no_pointing(corpus: Corpus) -> None:
    sample = next(samples(corpus, READER, 0, 300, 0.0, itertools.count()))
    row_ = pack([replace(sample, pointers=np.full(len(sample.ids), UNKNOWN))], 100, 50.0, pad=1)
    trainer = Trainer(make_lm(len(VOCABULARY.tokenizer)), lm_settings(pointing_heads=[[0, 1]]))
    assert set(trainer(row_)) == {"speech"}
