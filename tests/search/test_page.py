"""The folder of candidates: what is in it, what it looks like to a parser, and which folders it leaves alone."""

import csv
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from llasa.codec import Codec, load_codec
from llasa.errors import LlasaError
from llasa.search.page import check_folder, save_candidates
from llasa.speak.account import Account, Candidate
from llasa.speak.word_times import Word

RATE = 16000
CODES = np.arange(40, dtype=np.uint16)  # 0.8 s
TEXTS = ['Is 1 < 2 & "so" on?', "The second chunk."]


@pytest.fixture(scope="module")
def codec(codec_folder: Path) -> Codec:
    return load_codec(codec_folder)


def candidate(chunk: int, number: int, total: float, **changes: object) -> Candidate:
    facts: dict = {
        "codes": CODES, "finished": True,
        "scores": {"content": total, "speaker": 0.5}, "stages": 1, "key": (1, 0, total),
    }  # fmt: skip
    return Candidate(chunk, number, **(facts | changes))


@pytest.fixture
def account() -> Account:
    silent: dict = {"codes": np.empty(0, np.uint16), "scores": {}, "key": (0, 0, 0.0)}
    candidates = [
        candidate(0, 0, 0.2),
        candidate(0, 1, 0.9, chosen=True),
        candidate(0, 2, 0.0, condemned="repeats <itself>", finished=False, **silent),
        candidate(0, 3, 0.95, finished=False),
        candidate(1, 0, 0.4, chosen=True),
    ]
    seconds = {"lm": 1.5, "codec": 0.25, "verifier": 0.5}
    return Account("best-of:4", "content=1", TEXTS, candidates, 1234, 5, seconds, ["speaker <failed>"])


class Page(HTMLParser):
    """Audio files, text, list items' classes and everything that a page would load, in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sounds: list[str | None] = []
        self.items: list[str | None] = []
        self.loads: list[str | None] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.tags.add(tag)
        self.loads += [values[name] for name in ("src", "href") if name in values]
        if tag == "audio":
            self.sounds.append(values["src"])
        if tag == "li":
            self.items.append(values["class"])

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_all_sounds_are_there_as_they_were(codec: Codec, account: Account, tmp_path: Path) -> None:
    save_candidates(account, tmp_path / "out", codec)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"0-0.wav", "0-1.wav", "0-3.wav", "1-0.wav", "candidates.csv", "index.html"}
    samples, rate = soundfile.read(tmp_path / "out" / "0-3.wav", dtype="float32")
    assert rate == RATE
    assert soundfile.info(tmp_path / "out" / "0-1.wav").subtype == "PCM_16"
    np.testing.assert_allclose(samples, codec.decode(CODES).clip(-1, 1), atol=1 / 32767)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_table_has_every_candidate(codec: Codec, account: Account, tmp_path: Path) -> None:
    save_candidates(account, tmp_path / "out", codec)
    rows = list(csv.DictReader((tmp_path / "out" / "candidates.csv").open(newline="")))
    assert [(row["chunk"], row["number"]) for row in rows] == [
        (str(c.chunk), str(c.number)) for c in account.candidates
    ]
    assert rows[1] == {
        "chunk": "0", "number": "1", "seconds": "0.800", "tokens": "40", "finished": "1", "condemned": "",
        "content": "0.9", "speaker": "0.5", "total": "0.9", "chosen": "1",
    }  # fmt: skip
    assert (rows[2]["condemned"], rows[2]["content"], rows[2]["total"]) == ("repeats <itself>", "", "")


def test_the_page_lists_the_chosen_first_and_loads_nothing_from_elsewhere(
    codec: Codec, account: Account, tmp_path: Path
) -> None:
    save_candidates(account, tmp_path / "out", codec)
    page = Page(tmp_path / "out" / "index.html")
    assert page.sounds == ["0-1.wav", "0-0.wav", "0-3.wav", "1-0.wav"]
    assert page.items == ["chosen", "", "fragment", "condemned", "chosen"]
    assert page.loads == page.sounds
    assert "link" not in page.tags
    assert "itself" not in page.tags
    for shown in [*TEXTS, "best-of:4", "content=1", "1,234 tokens in 5 rows", "speaker <failed>", "repeats <itself>"]:
        assert shown in page.text


def test_the_page_knows_when_a_word_is_said(codec: Codec, account: Account, tmp_path: Path) -> None:
    def timed(one: Candidate) -> list[Word]:
        return [Word(word, n / 4, n / 4 + 0.25, 1.0) for n, word in enumerate(TEXTS[one.chunk].split())]

    save_candidates(account, tmp_path / "out", codec, timed)
    html = (tmp_path / "out" / "index.html").read_text()
    assert '<span class="words"><span>The</span> <span>second</span> <span>chunk.</span></span></h2>' in html
    assert 'src="1-0.wav" data-starts="0.00 0.25 0.50"></audio>' in html
    assert html.count("data-starts=") == 4  # one candidate has no codes


def test_the_page_has_the_order_of_the_search(codec: Codec, tmp_path: Path) -> None:
    """Not that of totals: one met a threshold, one came into the second stage of a cascade."""
    candidates = [
        candidate(0, 0, 0.9, key=(1, 0, 0.9)),
        candidate(0, 1, 0.1, key=(1, 1, 0.1)),
        candidate(0, 2, 0.2, key=(2, 0, 0.2), chosen=True),
        candidate(0, 3, 0.5, condemned="silent"),
    ]
    save_candidates(Account("best-of:4", "content", TEXTS[:1], candidates), tmp_path / "out", codec)
    assert Page(tmp_path / "out" / "index.html").sounds == ["0-2.wav", "0-1.wav", "0-0.wav", "0-3.wav"]


def test_a_function_of_any_range_still_has_bars(codec: Codec, account: Account, tmp_path: Path) -> None:
    for place, one in enumerate(account.candidates):
        one.scores = {"mine": -10.0 * place}
    save_candidates(account, tmp_path / "out", codec)
    written = (tmp_path / "out" / "index.html").read_text()
    assert "width:100.0%" in written
    assert "width:75.0%" in written
    assert "width:-" not in written


def test_an_earlier_page_gives_way_and_so_does_an_empty_folder(codec: Codec, account: Account, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    save_candidates(account, tmp_path / "out", codec)
    account.candidates = account.candidates[:1]
    save_candidates(account, tmp_path / "out", codec)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0-0.wav", "candidates.csv", "index.html"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "index.html"])
def test_a_folder_of_something_else_is_left_alone(name: str, codec: Codec, account: Account, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    for attempt in (lambda: check_folder(tmp_path), lambda: save_candidates(account, tmp_path, codec)):
        with pytest.raises(LlasaError, match="holds files that are not candidates"):
            attempt()
    assert (tmp_path / name).read_text() == "mine"


def test_a_page_that_was_added_to_is_left_alone(codec: Codec, account: Account, tmp_path: Path) -> None:
    save_candidates(account, tmp_path / "out", codec)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(LlasaError, match="choose a new or empty folder"):
        check_folder(tmp_path / "out")


def test_places_that_cannot_be_written_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LlasaError, match="is a file"):
        check_folder(tmp_path / "file")
    for path in (tmp_path / "file" / "out", Path("/proc/llasa")):
        with pytest.raises(LlasaError, match="cannot save candidates in") as raised:
            check_folder(path)
        assert "\n" not in str(raised.value)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())
