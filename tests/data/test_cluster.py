"""The job on a Ray cluster of this machine: several nodes, one of which dies in the middle."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from data.corpora import sound_file, tone

from llasa.data.cluster import run_on_ray
from llasa.data.encode import EncodeJob, encode
from llasa.data.filters import Limits
from llasa.data.shards import shard_files
from llasa.data.sources import find_source
from llasa.errors import LlasaError

ray = pytest.importorskip("ray")

SHARDS = 8


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    for i in range(3 * SHARDS):
        (tmp_path / "corpus" / f"{i:02d}.flac").write_bytes(sound_file(tone(1.5 + 0.05 * i, i)))
    return tmp_path / "corpus"


def test_a_node_that_dies_in_the_middle_loses_nothing(
    corpus: Path, codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    quiet = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
    soon = {"health_check_period_ms": 500, "health_check_initial_delay_ms": 500}  # else a death is noticed late
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": soon, **quiet})
    try:
        doomed = cluster.add_node(num_cpus=1, object_store_memory=quiet["object_store_memory"])
        cluster.wait_for_nodes()
        job = EncodeJob(tmp_path / "out", str(codec_folder), "cpu", Limits(), workers=2)
        killed: list[int] = []

        def kill_one(ready: int, *_: Any) -> None:
            if ready == 2 and not killed:
                killed.append(ready)
                cluster.remove_node(doomed, allow_graceful=False)

        source = find_source(str(corpus), shard=3)
        report = encode(source, job, kill_one, print, partial(run_on_ray, cluster.address))
        assert killed
        assert report.kept.utterances == 3 * SHARDS
        alone = EncodeJob(tmp_path / "alone", str(codec_folder), "cpu", Limits(), workers=2)
        encode(source, alone, lambda *_: None, print)
        found = [[path.read_bytes() for path in shard_files(out)] for out in (job.out, alone.out)]
        assert len(found[0]) == SHARDS
        assert found[0] == found[1]
        assert not list(job.out.glob(".*.tmp"))
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_no_cluster_is_told_in_a_line(corpus: Path, codec_folder: Path, tmp_path: Path):
    job = EncodeJob(tmp_path / "out", str(codec_folder), "cpu", Limits(), workers=2)
    for address, message in (("not-an-address", "failed"), ("127.0.0.1:1", "no Ray cluster answers")):
        with pytest.raises(LlasaError, match=message):
            encode(find_source(str(corpus)), job, lambda *_: None, print, partial(run_on_ray, address))
