"""Tables and pictures as files."""

from pathlib import Path

import numpy as np
import pytest

from llasa.errors import LlasaError
from llasa.measure import tables as report
from llasa.measure.statistics import Interval


def test_figures_carry_their_intervals() -> None:
    assert report.percent(Interval(0.1734, 0.14, 0.209)) == "17.3 % (14.0 to 20.9)"
    assert report.show(Interval(0.8512, 0.84, 0.86)) == "0.85 (0.84 to 0.86)"


def test_a_table_says_which_bars_were_met() -> None:
    rows = [report.Row("STOI", "0.9", "0.85", True), report.Row("RTF", "0.5", "0.30", False), report.Row("PESQ", "2")]
    lines = report.table(rows).splitlines()
    assert lines[2:] == ["| STOI | 0.9 | 0.85 | pass |", "| RTF | 0.5 | 0.30 | **fail** |", "| PESQ | 2 |  |  |"]


def test_a_table_shows_what_was_measured_before() -> None:
    rows = [report.Row("speed", "2", "at most 3", True), report.Row("height", "1")]
    assert report.table(rows, {"speed": "4", "width": "5"}).splitlines() == [
        "| what | measured (95 % interval) | bar | | before |",
        "|---|---|---|---|---|",
        "| speed | 2 | at most 3 | pass | 4 |",
        "| height | 1 |  |  |  |",
    ]
    assert report.table(rows, {}) == report.table(rows)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(LlasaError, match="cannot write"):
        report.write_text(tmp_path / "taken" / "table.md", "text")
    with pytest.raises(LlasaError, match="cannot write"):
        report.draw_spectrograms(tmp_path / "taken" / "a.png", [("x", [("a", np.zeros(8000, np.float32))])])


def test_text_replaces_what_was_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    report.write_text(tmp_path / "table.md", "old")
    report.write_text(tmp_path / "table.md", "new")
    assert (tmp_path / "table.md").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_picture_shows_where_the_sound_is(tmp_path: Path) -> None:
    from matplotlib.image import imread

    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    sentence = "costs $5 or $6"  # two dollar signs would be mathematics to matplotlib
    report.draw_spectrograms(tmp_path / "a.png", [(sentence, [("tone", tone), ("silence", 0 * tone)])])
    picture = imread(tmp_path / "a.png")[:, :, :3]
    left, right = np.array_split(picture[40:-60], 2, axis=1)
    # Colour (not grey) is magma's; silence is drawn black.
    assert np.ptp(left, axis=2).max() > 0.5
    assert np.ptp(right, axis=2).max() < 0.1
    assert len(list(tmp_path.iterdir())) == 1
