"""`penstock up`: a gateway, and engines to try it with, as supervised processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from penstock.config import Config
    from penstock.supervisor.service import Service


def up(
    config: Annotated[
        Path | None, typer.Option(help="Configuration in YAML; its nodes are used instead of demo engines.", metavar="FILE")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.  [default: 8080, or the configuration's]", show_default=False)] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port of metrics and admin.  [default: 8081, or the configuration's]", show_default=False)
    ] = None,
    engine_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the first demo engine.")] = 9001,
    engines: Annotated[int, typer.Option(min=1, max=64, help="How many demo engines.")] = 4,
    profile: Annotated[str, typer.Option(help="Hardware that the demo engines stand for.", metavar="NAME")] = "mooncake-demo",
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model that the demo engines serve; repeatable.  [default: deepseek-v3, deepseek-r1]", metavar="NAME"),
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.001, max=1_000, help="How much faster than that hardware the demo engines run.", metavar="X")
    ] = 1.0,
    journal: Annotated[Path | None, typer.Option(help="Folder for the gateway's journal, for `penstock replay`.", metavar="DIR")] = None,
) -> None:
    """Start everything on this machine: a gateway and demo engines, or a gateway in front of your nodes."""
    import asyncio
    import tempfile

    from penstock.engine import profiles
    from penstock.gateway import settings
    from penstock.supervisor import demo
    from penstock.supervisor.ports import refuse_taken
    from penstock.supervisor.supervisor import supervise

    given = settings.load(config) if config is not None else settings.read("")
    wanted = demo.with_ports(given, port, admin_port)
    services = []
    if not given.nodes:
        profiles.load(profile)
        models = tuple(dict.fromkeys(model or demo.DEMO_MODELS))
        wanted = demo.with_engines(wanted, engines, engine_port, models, profile)
        services.append(demo.engine_service(engines, engine_port, models, profile, speed))
    refuse_taken(_places(wanted, services))
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        file = config
        if file is None or wanted != given:
            file = Path(folder) / "penstock.json"
            file.write_bytes(demo.as_json(wanted))
        services.append(demo.gateway_service(wanted, file, journal))
        code = asyncio.run(supervise(services, lambda: _announce(wanted, len(services) > 1)))
    raise typer.Exit(code)


def _places(config: Config, engines: list[Service]) -> list[tuple[str, str, int, str]]:
    places = [("API", config.listen.host, config.listen.port, "--port"), ("admin", config.admin.host, config.admin.port, "--admin-port")]
    if engines:
        places += [(node.name, "127.0.0.1", int(node.url.rpartition(":")[2]), "--engine-port") for node in config.nodes]
    return places


def _announce(config: Config, demo: bool) -> None:
    from penstock import __version__
    from penstock.supervisor.demo import url

    api, admin = url(config.listen), url(config.admin)
    model = next((model for node in config.nodes for model in node.models), "MODEL")
    key = ' -H "authorization: Bearer $KEY"' if config.keys else ""
    engines = f"{len(config.nodes)} {'demo engine' if demo else 'node'}{'' if len(config.nodes) == 1 else 's'}"
    print(
        f"\nPenstock {__version__} is up: one gateway before {engines}\n"
        f"  API      {api}/v1  (OpenAI-compatible)\n"
        f"  metrics  {admin}/metrics\n"
        f"  state    {admin}/admin/state\n\n"
        f"Try it:\n"
        f"  curl -N {api}/v1/chat/completions -H 'content-type: application/json'{key} \\\n"
        f'    -d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}\'\n\n'
        f"Ctrl-C stops everything.\n",
        flush=True,
    )
