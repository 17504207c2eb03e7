"""Amounts of speech that lie within one another, and utterances held out from all of them."""

from pathlib import Path

import pytest
from studies.grids import make_corpus, small_study

from llasa.data.shards import read_rows, shard_files
from llasa.errors import LlasaError
from llasa.studies.training.corpus import cut, hold_out, make_reader, packed, place_of
from llasa.studies.training.grid import GridSettings, grid, recipe
from llasa.train.lm.settings import LMSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    make_corpus(path)
    return path


@pytest.fixture(scope="module")
def some(folder: Path, codec_folder: Path) -> LMSettings:
    settings = GridSettings(**small_study(codec_folder, folder))
    return recipe(settings, grid(settings)[0])


def ids(folder: Path) -> list[str]:
    return [row["id"] for file in shard_files(folder) for row in read_rows(file)]


def test_an_amount_is_the_front_of_every_larger_one(folder: Path, some: LMSettings, tmp_path: Path) -> None:
    amounts = cut(folder / "codes/train", [0.03, 0.01], tmp_path, some)
    less, more = (ids(place_of(tmp_path, hours)) for hours in (0.01, 0.03))
    assert more == [str(i) for i in range(len(more))]
    assert len(more) > 30  # of the second shard too
    assert less == more[: len(less)]
    for hours, found in ((0.01, less), (0.03, more)):
        assert amounts[hours].utterances == len(found)
        # The last utterance is the one with which it is enough.
        assert hours <= amounts[hours].hours < hours + 4 / 3600
    reader = make_reader(some)
    rows = [row for file in shard_files(place_of(tmp_path, 0.01)) for row in read_rows(file)]
    assert amounts[0.01].tokens == sum(int(pack.bounds[1]) for row in rows for pack in packed([row], reader, 500))
    assert cut(folder / "codes/train", [0.01, 0.03], tmp_path, some) == amounts


def test_too_few_hours_are_told(folder: Path, some: LMSettings, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=r"has 0\.0\d+ hours that can be trained on, fewer than 2"):
        cut(folder / "codes/train", [0.01, 2], tmp_path, some)


def test_what_is_held_out_either_chooses_or_measures(folder: Path, some: LMSettings) -> None:
    reader = make_reader(some)
    unseen = hold_out(folder / "codes/val", 12, reader, some.data.longest)
    chosen, measured = ([row["id"] for row in rows] for rows in (unseen.choosing, unseen.measuring))
    assert (len(chosen), len(measured)) == (3, 9)
    assert sorted(chosen + measured) == [str(i) for i in range(60, 72)]
    pairs = unseen.to_say(4, reader.rate)
    assert len(pairs) == 4
    for row, reference in pairs:
        assert row["speaker"] == reference["speaker"]
        assert row["id"] != reference["id"]
    with pytest.raises(LlasaError, match="1 utterances that can be held out"):
        hold_out(folder / "codes/val", 1, reader, some.data.longest)


def test_packing_loses_no_utterance_and_keeps_their_order(folder: Path, some: LMSettings) -> None:
    reader = make_reader(some)
    unseen = hold_out(folder / "codes/val", 12, reader, some.data.longest)
    found = []
    for pack in packed(unseen.measuring, reader, 600):
        assert pack.ids.shape == (600,)
        for a, b in zip(pack.bounds, pack.bounds[1:], strict=False):
            labels = pack.labels[a:b]
            if (codes := labels[labels >= reader.vocabulary.first] - reader.vocabulary.first).numel():
                found.append(codes.tolist())
    assert found == [row["codes"] for row in unseen.measuring]
