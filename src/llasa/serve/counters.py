"""What `GET /metrics` tells: counts and times, and never a text."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llasa.serve.scheduler import Scheduler

FIRST = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)  # seconds


class Counters:
    """The counters of one server, in a registry of their own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llasa_requests", "Requests by route and status", ("route", "status"), registry=self.registry
        )
        self.spoken = Counter("llasa_spoken_seconds", "Seconds of speech sent", registry=self.registry)
        self.first = Histogram(
            "llasa_first_sound_seconds", "From a request to its first sound", buckets=FIRST, registry=self.registry
        )
        self.registry.register(_Load(scheduler))


class _Load(Collector):
    """What the scheduler knows, read when it is asked for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        scheduler = self._scheduler
        yield GaugeMetricFamily("llasa_streams_running", "Streams that run", scheduler.running)
        yield GaugeMetricFamily("llasa_streams_waiting", "Streams that wait", scheduler.waiting)
        yield GaugeMetricFamily("llasa_pace", "Codes a second that each stream gets; 50 are heard", scheduler.pace)
        yield CounterMetricFamily("llasa_streams", "Streams that were read to their end", scheduler.finished)
        yield CounterMetricFamily("llasa_gaps", "Sounds that came too late for their listener", scheduler.gaps)
