"""A port in use is named before anything is started."""

from __future__ import annotations

import socket

import pytest

from penstock.errors import PenstockError
from penstock.supervisor.ports import refuse_taken


def test_a_taken_port_is_named_with_the_option_that_moves_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            PenstockError, match=rf"^API: cannot listen on 127\.0\.0\.1:{port} \(Address already in use\); choose another port with --port$"
        ):
            refuse_taken([("API", "127.0.0.1", port, "--port")])


def test_a_free_port_is_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    refuse_taken([("API", "127.0.0.1", port, "--port"), ("any", "127.0.0.1", 0, "--x")])
    refuse_taken([("API", "127.0.0.1", port, "--port")])


def test_a_number_that_is_no_port_is_refused() -> None:
    with pytest.raises(PenstockError, match="70000 is not a port"):
        refuse_taken([("engine", "127.0.0.1", 70_000, "--engine-port")])


def test_a_host_that_is_not_here_is_refused() -> None:
    with pytest.raises(PenstockError, match="API: cannot listen on 192.0.2.1:80"):
        refuse_taken([("API", "192.0.2.1", 80, "--port")])


def test_a_port_wanted_twice_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with pytest.raises(PenstockError, match=f"engine-1: port {port} is for API; choose another with --engine-port"):
        refuse_taken([("API", "127.0.0.1", port, "--port"), ("engine-1", "127.0.0.1", port, "--engine-port")])
