"""TLS on both sides of the gateway."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.world import BODY, STREAM, Caller, answer, run, until, world

from penstock.config import Config, Listen, Tls


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for localhost that is its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing; no certificate can be made")
    folder: Path = tmp_path_factory.mktemp("tls")
    tls = Tls(cert=str(folder / "cert.pem"), key=str(folder / "key.pem"))
    make = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *names, "-keyout", tls.key, "-out", tls.cert], check=True, capture_output=True)
    return tls


def _serving(pair: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


def test_callers_and_engines_speak_tls(pair: Tls) -> None:
    async def test() -> None:
        config = Config(listen=Listen(tls=pair))
        async with world(answer, config=config, tls=_serving(pair), ca=pair.cert, sni="localhost") as w:
            assert w.gateway.url.startswith("https://")
            for body in (BODY, STREAM):
                async with Caller(w.port, ssl.create_default_context(cafile=pair.cert)) as caller:
                    caller.send(body)
                    assert (await caller.answer()).status == 200

    run(test)


@pytest.mark.parametrize("node", [{"sni": "localhost"}, {"ca": True}, {"ca": True, "sni": "elsewhere"}], ids=str)
def test_an_engine_whose_certificate_does_not_fit_gets_nothing(pair: Tls, node: dict[str, object]) -> None:
    given: dict[str, Any] = {name: pair.cert if name == "ca" else value for name, value in node.items()}

    async def test() -> None:
        async with world(answer, config=Config(probe_s=0.02), tls=_serving(pair), **given) as w, Caller(w.port) as caller:
            caller.send(BODY)
            got = await caller.answer()
            assert (got.status, got.error["code"]) == (503, "failed")
            await until(lambda: not w.gateway.core.ready())
            assert not w.asked

    run(test)
