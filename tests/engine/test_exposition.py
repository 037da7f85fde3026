from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from penstock.engine.exposition import Buckets, Page


def test_a_page_is_valid_exposition() -> None:
    buckets = Buckets((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        buckets.add(value)
    page = Page('a "name"\\')
    page.gauge("vllm:num_requests_running", "Running.", 3)
    page.counter("vllm:prompt_tokens", "Prompt tokens.", 7)
    page.finished({"stop": 1, "length": 2})
    page.histogram("vllm:time_to_first_token_seconds", "TTFT.", buckets)
    families = {family.name: family for family in text_string_to_metric_families(page.bytes().decode())}
    assert families["vllm:num_requests_running"].samples[0].labels == {"model_name": 'a "name"\\'}
    assert families["vllm:prompt_tokens"].samples[0].value == 7
    assert [sample.value for sample in families["vllm:request_success"].samples] == [1, 2]
    assert [sample.value for sample in families["vllm:time_to_first_token_seconds"].samples] == [2, 3, 4, 4, 12]
