"""Upstream's rows and code files: read, written, and trained on as upstream's dataset class would."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nested import lm_settings
from small_models import ALPHABET
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llasa.cli import main
from llasa.data import official
from llasa.data.shards import CODES_SCHEMA, read_rows, shard_files, write_shard
from llasa.errors import LlasaError
from llasa.files import claimed
from llasa.train.lm.data import Corpus, Reader, Sample, pack, packs, sample_indices, samples
from llasa.vocabulary import Vocabulary, character_tokenizer, extend_tokenizer, read_vocabulary

# Llama 3's: a system turn that nobody asked for, headers, trimmed contents, and the eos behind every turn.
TEMPLATE = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}"
    "{% if not (loop.last and continue_final_message) %}<|eot_id|>{% endif %}{% endfor %}"
)
TEXTS = ["It was late.", "In 1984, “nobody” spoke; the lamp had burned low!", "Größe, naïve, 東京 and 3.5%"]


def llama3_like(codebook: int = 64) -> Vocabulary:
    """A byte-level BPE tokenizer with Llama 3's marks, template and eos, and speech tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    tokenizer.add_tokens(["<|start_header_id|>", "<|end_header_id|>"], special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    extend_tokenizer(tokenizer, codebook)
    return read_vocabulary(tokenizer)


VOCABULARY = llama3_like()
READER = Reader(VOCABULARY, None, 50.0)


def codes_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 64, count).astype(np.uint16)


def specification(row: np.ndarray, tokenizer: Any) -> tuple[list[int], list[int]]:
    """What LLaSA_training's `TTSDataset` returns for a row: (2048,) ids and labels, in which padding is the eos.

    The row's text takes the place of `<|TEXT_UNDERSTANDING_START|>` in the chat, its speech that of
    `<|SPEECH_GENERATION_START|>`. A label is the token itself from that mark on, and never the eos; what does not fit
    is cut. Where the row has no end token, its speech is all the rest.
    """
    name = tokenizer.convert_tokens_to_ids
    opening, start, end = (
        name(t) for t in ("<|TEXT_UNDERSTANDING_START|>", "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>")
    )
    numbers = row.tolist()
    at = numbers.index(start)
    stop = numbers.index(end) if end in numbers else 2048
    chat = [
        {"role": "user", "content": "Convert the text to speech:<|TEXT_UNDERSTANDING_START|>"},
        {"role": "assistant", "content": "<|SPEECH_GENERATION_START|>"},
    ]
    ids: list[int] = []
    for token in tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False):
        ids += numbers[:at] if token == opening else numbers[at : stop + 1] if token == start else [token]
    begin, pad = ids.index(start), tokenizer.eos_token_id
    labels = [token if i >= begin and token != pad else -100 for i, token in enumerate(ids)]
    return (ids + [pad] * 2048)[:2048], (labels + [-100] * 2048)[:2048]


def padded(sample: Sample) -> tuple[list[int], list[int]]:
    """A sample as upstream would have it, from what our own packing makes of it."""
    eos = VOCABULARY.tokenizer.eos_token_id
    packed = pack([sample], 2048, 50.0, pad=eos)
    # Ours are shifted: what position t predicts, instead of what t is.
    return packed.ids.tolist(), [-100, *packed.labels[:-1].tolist()]


@pytest.mark.parametrize("count", [1, 30, 1900, 2040, 3000])  # the last ones are cut: by the template, by the row
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_and_labels_are_those_of_upstreams_dataset(text: str, count: int) -> None:
    row = official.make_row(text, codes_of(count), VOCABULARY)
    ids, first = official.sequence(row, VOCABULARY)
    assert padded(Sample(ids, first, np.full(len(ids), -1))) == specification(row, VOCABULARY.tokenizer)


def test_a_row_is_laid_out_as_upstreams_script_does() -> None:
    tokenizer, codes = VOCABULARY.tokenizer, codes_of(5)
    text = "<|TEXT_UNDERSTANDING_START|>It was late.<|TEXT_UNDERSTANDING_END|>"
    spoken = "".join(f"<|s_{code}|>" for code in codes)
    whole = f"{text}<|SPEECH_GENERATION_START|>{spoken}<|SPEECH_GENERATION_END|>"
    wanted = tokenizer.encode(whole, add_special_tokens=False)
    row = official.make_row("It was late.", codes, VOCABULARY)
    assert row.dtype == np.int32
    assert row.shape == (2048,)
    assert row[: len(wanted)].tolist() == wanted
    assert set(row[len(wanted) :].tolist()) == {tokenizer.eos_token_id}


@pytest.mark.parametrize("vocabulary", [VOCABULARY, read_vocabulary(character_tokenizer(ALPHABET, 64, 512))])
@settings(max_examples=20, deadline=None)
@given(text=st.text(ALPHABET.strip(), min_size=1, max_size=40), count=st.integers(0, 200))
def test_a_row_is_the_prompt_that_we_speak_with(vocabulary: Vocabulary, text: str, count: int) -> None:
    codes = codes_of(count)
    ids, first = official.sequence(official.make_row(text, codes, vocabulary), vocabulary)
    assert ids.tolist() == [*vocabulary.prompt(text, None, codes), vocabulary.end]
    assert ids[first] == vocabulary.start


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "codes" / "train"
    folder.mkdir(parents=True)
    facts = {"speaker": "a", "language": "en", "seconds": 1.0, "phones": [], "ends": []}
    rows = [{"id": str(i), "text": text, "codes": codes_of(20 + i, i), **facts} for i, text in enumerate([*TEXTS, ""])]
    write_shard(folder / "0.parquet", rows, CODES_SCHEMA)
    return folder


def test_shards_to_rows_and_back(shards: Path, tmp_path: Path) -> None:
    assert official.export_shards(shards, tmp_path / "bin", "train", VOCABULARY, None) == (3, 0)
    back = official.utterances(tmp_path / "bin", "train", VOCABULARY, 50.0, "a")
    list(official.write_shards(back, tmp_path / "again", "bin"))
    ours, theirs = ([*itertools.chain(*map(read_rows, shard_files(f)))] for f in (shards, tmp_path / "again"))
    for one, other in zip(ours[:3], theirs, strict=True):  # the fourth has no text
        assert (one["text"], one["codes"], one["speaker"]) == (other["text"], other["codes"], other["speaker"])
        assert other["seconds"] == pytest.approx(len(one["codes"]) / 50)
    # What upstream's own class opens them with.
    shape = tuple(np.load(tmp_path / "bin" / "train_input_ids_shape.npy"))
    assert np.memmap(tmp_path / "bin" / "train_input_ids.memmap", dtype="int32", mode="r", shape=shape).shape == (
        3,
        2048,
    )


def test_phones_are_written_for_a_model_that_reads_phones(shards: Path, tmp_path: Path) -> None:
    vocabulary = read_vocabulary(character_tokenizer("abcdefghijklmnopqrstuvwxyz .ɪW", 64, 512))
    official.export_shards(shards, tmp_path, "train", vocabulary, {"it": "ɪt", "was": "Wɪs"})
    assert next(official.utterances(tmp_path, "train", vocabulary, 50.0, ""))["text"] == "ɪt Wɪs late."


def test_training_takes_rows_as_they_are_and_packs_them(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    official.export_shards(shards, folder, "train", VOCABULARY, None)
    rows = official.open_rows(folder, "train")
    wanted = sorted(specification(row, VOCABULARY.tokenizer)[0] for row in rows)
    stream = samples(Corpus({folder: 1}), READER, 0, 2048, joined=0.9, indices=sample_indices([], 0, 1))
    assert sorted(padded(next(stream))[0] for _ in range(3)) == wanted
    packed = next(packs(stream, 2048, 50.0, pad=0))
    assert len(packed.bounds) > 10  # instead of one padded row
    tokens = int((packed.labels >= 0).sum())
    assert tokens == sum(sum(t >= 0 for t in padded(sample)[1]) for sample in _samples_of(packed))
    assert list(Corpus({folder: 2}, limit=2).order) == [0, 1, 0, 1]
    with pytest.raises(LlasaError, match="no val_input_ids"):
        Corpus({folder: 1}, split="val")


def _samples_of(packed: Any) -> list[Sample]:
    parts = [packed.ids[a:b].numpy() for a, b in itertools.pairwise(packed.bounds)]
    whole = [ids for ids in parts if VOCABULARY.start in ids]
    return [Sample(ids, int(np.flatnonzero(ids == VOCABULARY.start)[0]), np.full(len(ids), -1)) for ids in whole]


def test_a_model_learns_the_same_from_packed_and_from_padded_rows(shards: Path, tmp_path: Path) -> None:
    """One step's loss, theirs by transformers on padded rows, ours on one packed row."""
    from small_models import make_lm

    from llasa.train.lm.stage import Trainer

    official.export_shards(shards, tmp_path, "train", VOCABULARY, None)
    model = make_lm(len(VOCABULARY.tokenizer), max_position_embeddings=2048)
    total = count = 0.0
    chosen = []
    for row in official.open_rows(tmp_path, "train"):
        ids, labels = (torch.tensor(part)[None, :512] for part in specification(row, VOCABULARY.tokenizer))
        n = int((labels >= 0).sum())
        with torch.no_grad():
            total, count = total + float(model(ids, labels=labels).loss) * n, count + n
        found, first = official.sequence(row, VOCABULARY)
        chosen.append(Sample(found, first, np.full(len(found), -1)))
    packed = pack(chosen, sum(len(sample.ids) for sample in chosen) + 7, 50.0, pad=0)
    with torch.no_grad():
        ours = float(Trainer(model, lm_settings())(packed)["speech"])
    assert ours == pytest.approx(total / count, abs=1e-5)


def bad_row(ids: list[int]) -> np.ndarray:
    return np.array((ids + [VOCABULARY.tokenizer.eos_token_id] * 64)[:64], dtype=np.int32)


@pytest.mark.parametrize(
    "ids",
    [
        [5, 6, 7],
        [5, VOCABULARY.start, VOCABULARY.first, VOCABULARY.end, VOCABULARY.start, VOCABULARY.end],
        [5, VOCABULARY.end, VOCABULARY.start],
        [5, VOCABULARY.start, VOCABULARY.first],  # neither ended nor full
    ],
)
def test_a_row_that_is_no_utterance_is_refused(ids: list[int], tmp_path: Path) -> None:
    good = official.make_row("a", codes_of(3), VOCABULARY)[:64]
    official.write_rows(tmp_path, "val", [good, bad_row(ids)])
    with pytest.raises(
        LlasaError, match=r"val_input_ids.memmap, row 1: \d starts? and .* whose tokenizer made the rows"
    ):
        list(official.utterances(tmp_path, "val", VOCABULARY, 50.0, ""))


def test_damaged_rows_are_refused(tmp_path: Path) -> None:
    memmap, shape = tmp_path / "train_input_ids.memmap", tmp_path / "train_input_ids_shape.npy"
    memmap.write_bytes(bytes(4 * 10))
    with pytest.raises(LlasaError, match="no train_input_ids_shape"):
        official.open_rows(tmp_path, "train")
    np.save(shape, [2, 2048])
    with pytest.raises(LlasaError, match="40 bytes, which is not 2 rows of 2048"):
        official.open_rows(tmp_path, "train")
    for wrong in ([3], [[1, 2]], "x", [0, 2048]):
        np.save(shape, wrong)
        with pytest.raises(LlasaError, match=r"two numbers|which is not"):
            official.open_rows(tmp_path, "train")
    shape.write_bytes(b"")
    with pytest.raises(LlasaError, match="two numbers"):
        official.open_rows(tmp_path, "train")


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Any:
        yield official.make_row("a", codes_of(3), VOCABULARY)
        raise LlasaError("no more")

    with pytest.raises(LlasaError, match="no more"):
        official.write_rows(tmp_path, "train", rows())
    assert not list(tmp_path.iterdir())
    assert official.write_rows(tmp_path, "train", []) == 0
    assert not list(tmp_path.iterdir())


def test_code_files_find_their_transcripts(tmp_path: Path) -> None:
    folder = tmp_path / "codes" / "vq_codes"
    (folder / "LJ002").mkdir(parents=True)
    for name in ("LJ001-0001.wav.npy", "LJ002/LJ002-0001.wav.npy", "LJ002/b.1.npy", "LJ002/silent.npy"):
        np.save(folder / name, codes_of(7).astype(np.int32))
    table = tmp_path / "metadata.csv"
    table.write_text("LJ001-0001|In 1984|In nineteen\nLJ002/LJ002-0001|Two\nb.1|Three|3\nmissing|Four\nbroken\n\n")
    found, silent = official.code_files(tmp_path, table)
    assert [(name.split("/")[-1], text) for name, text, _ in found] == [
        ("LJ001-0001", "In 1984"), ("LJ002-0001", "Two"), ("b.1", "Three")
    ]  # fmt: skip
    assert silent == 1
    rows = list(official.read_code_files(found, VOCABULARY, 50.0, "lj"))
    assert all(np.array_equal(row["codes"], codes_of(7)) and row["speaker"] == "lj" for row in rows)
    table.write_text("other|Text\n")
    with pytest.raises(
        LlasaError, match="no transcript for any of 4 files: its ids are like other, the files' names like LJ001-0001"
    ):
        official.code_files(tmp_path, table)
    with pytest.raises(LlasaError, match="pass --text"):
        official.code_files(tmp_path, tmp_path / "none.csv")
    np.save(folder / "LJ001-0001.wav.npy", np.array([64]))
    with pytest.raises(LlasaError, match="code 64 is outside"):
        list(official.read_code_files(found, VOCABULARY, 50.0, ""))


def test_an_import_leaves_all_shards_or_none(
    tmp_path: Path, lm_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in the middle, or ended by a bad file, it leaves no shards that look like the whole corpus."""
    monkeypatch.setattr(official, "SHARD", 4)
    codes, out = tmp_path / "codes", tmp_path / "out"
    codes.mkdir()
    for i in range(10):
        np.save(codes / f"{i}.npy", codes_of(7).astype(np.int32))
    (codes / "metadata.csv").write_text("".join(f"{i}|text\n" for i in range(10)))
    (codes / "9.npy").write_bytes(b"\x93NUMPY")
    (out / ".train.killed.tmp").mkdir(parents=True)
    arguments = ["data", "import", str(codes), str(out), "--model", str(lm_folder)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert [path.name for path in out.rglob("*")] == [".lock"]
    with claimed(out), pytest.raises(SystemExit):
        main(arguments)
    assert "is writing into" in capsys.readouterr().err
    np.save(codes / "9.npy", codes_of(7).astype(np.int32))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert [path.name for path in sorted((out / "train").iterdir())] == [f"codes-0000{i}.parquet" for i in range(3)]
