"""Signals from engines' metrics pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.facts import Signals
from penstock.wire.prom import COUNT_MAX, read

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b} \\"c"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4.0 1700000000
vllm:num_requests_waiting{engine="0",model_name="a"} 2
vllm:num_requests_waiting_by_reason{engine="0"} 99
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="0.1"} 7
%s{engine="0"} 0.25
%s{engine="1"} 0.75
"""


@pytest.mark.parametrize("name", [b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"])
@pytest.mark.parametrize("line", [b"\n", b"\r\n"])
def test_vllm_is_read_by_old_and_new_names(name: bytes, line: bytes) -> None:
    assert read((VLLM % (name, name)).replace(b"\n", line)) == Signals(7, 2, 0.5)


def test_sglang_counts_a_tensor_parallel_group_once() -> None:
    page = b'sglang:num_running_reqs{tp_rank="0",dp_rank="0"} 5\nsglang:num_running_reqs{tp_rank="1",dp_rank="0"} 5\n'
    page += b'sglang:num_running_reqs{tp_rank="0",dp_rank="1"} 6\nsglang:num_queue_reqs{tp_rank="0"} 1\nsglang:token_usage 0.5'
    assert read(page) == Signals(11, 1, 0.5)


def test_llama_cpp_is_read() -> None:
    page = b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 0\nllamacpp:kv_cache_usage_ratio 1.001\n"
    assert read(page) == Signals(2, 0, 1.0)


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-1", b"1e300", b"text", b"1%d" % COUNT_MAX, b""])
def test_nonsense_is_unknown(value: bytes) -> None:
    names = (b"num_requests_running", b"num_requests_waiting", b"kv_cache_usage_perc")
    assert read(b"\n".join(b"vllm:%s %s" % (name, value) for name in names)) == Signals()


def test_usage_far_above_one_is_unknown() -> None:
    assert read(b"vllm:kv_cache_usage_perc 45.0\n") == Signals()


@pytest.mark.parametrize("page", [b"", b"<html>vllm: </html>", b"process_cpu_seconds_total 5\n"])
def test_other_pages_say_nothing(page: bytes) -> None:
    assert read(page) == Signals()


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_bytes_are_survived(labels: bytes, value: bytes) -> None:
    signals = read(b"vllm:num_requests_running{" + labels + b"} " + value)
    assert signals.running is None or 0 <= signals.running <= COUNT_MAX
