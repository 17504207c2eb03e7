"""Work in several processes: what comes back, and what is left when the first one is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llasa.errors import LlasaError
from llasa.studies.workers import spread

ENDLESS = """
import sys, time
from pathlib import Path
from llasa.studies.workers import spread

def work(place):
    Path(sys.argv[1], str(place)).touch()
    time.sleep(3600)

if __name__ == "__main__":
    list(spread(work, [0, 1], 2))
"""


def test_every_job_comes_back_with_its_place() -> None:
    assert sorted(spread(abs, [-3, 1, -2], 2)) == [(0, 3), (1, 1), (2, 2)]


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(LlasaError, match="a process of the study died"):
        list(spread(os._exit, [1], 1))


def test_killed_it_leaves_no_process_behind(tmp_path: Path) -> None:
    script, begun = tmp_path / "endless.py", tmp_path / "begun"
    script.write_text(ENDLESS)
    begun.mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(begun)])
    while len(list(begun.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
