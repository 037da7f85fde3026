"""Metrics pages: the families of `penstock.metrics` through prometheus-client's encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from penstock.metrics.catalog import Kind
from penstock.metrics.families import Family
from penstock.metrics.histogram import Histogram


def page(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The page in the format that `accept` prefers, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return map(_converted, self._families)


def _converted(family: Family) -> Metric:
    metric = family.metric
    if metric.kind is Kind.HISTOGRAM:
        return _histogram(family)
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    converted = kind(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
    for labels, value in family.samples:
        if not isinstance(value, Histogram):
            converted.add_metric(labels, value)
    return converted


def _histogram(family: Family) -> HistogramMetricFamily:
    converted = HistogramMetricFamily(family.metric.name, family.metric.help, labels=family.metric.labels)
    bounds = [*map(str, family.metric.buckets), "+Inf"]
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            converted.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.sum)
    return converted
