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
    engine_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the first demo engine, or of your model's.")] = 9001,
    engines: Annotated[int, typer.Option(min=1, max=64, help="How many demo engines.")] = 4,
    profile: Annotated[str, typer.Option(help="Hardware that the demo engines stand for.", metavar="NAME")] = "mooncake-demo",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own model: a GGUF file, served by llama.cpp. Or a name for the demo engines' models; repeatable.  "
            "[default: deepseek-v3, deepseek-r1]",
            metavar="FILE|NAME",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=16, help="Tokens your model has for a prompt and its answer.  [default: its own, at most 8192]", show_default=False
        ),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, max=256, help="Answers your model writes at once.  [default: 4]", show_default=False)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1_024, help="Threads it computes with.  [default: one a core, less one]", show_default=False),
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.001, max=1_000, help="How much faster than that hardware the demo engines run.", metavar="X")
    ] = 1.0,
    journal: Annotated[Path | None, typer.Option(help="Folder for the gateway's journal, for `penstock replay`.", metavar="DIR")] = None,
) -> None:
    """Start everything on this machine: a gateway with demo engines, with your own model, or in front of your nodes."""
    import asyncio
    import tempfile

    from penstock.engine import profiles
    from penstock.errors import ConfigError
    from penstock.gateway import settings
    from penstock.supervisor import demo, own
    from penstock.supervisor.ports import refuse_taken
    from penstock.supervisor.supervisor import supervise

    given = settings.load(config) if config is not None else settings.read("")
    wanted = demo.with_ports(given, port, admin_port)
    services = []
    file = own.named_file(model or [])
    foreign = {"--context": context, "--parallel": parallel, "--threads": threads} if file is None else {"--model": given.nodes}
    if unfit := next((option for option, value in foreign.items() if value), None):
        raise ConfigError("needs a model file: --model FILE.gguf" if file is None else "the configuration names nodes already", key=unfit)
    if file is not None:
        mine = own.find(file, engine_port, context, parallel, threads)
        wanted = own.with_model(wanted, mine)
        services.append(own.model_service(mine))
        before = f"{mine.model.name}, {mine.parallel} answers of {mine.context} tokens at once"
    elif given.nodes:
        before = _count(len(given.nodes), "node")
    else:
        profiles.load(profile)
        models = tuple(dict.fromkeys(model or demo.DEMO_MODELS))
        wanted = demo.with_engines(wanted, engines, engine_port, models, profile)
        services.append(demo.engine_service(engines, engine_port, models, profile, speed))
        before = _count(engines, "demo engine")
    refuse_taken(_places(wanted, services))
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        written = config
        if written is None or wanted != given:
            written = Path(folder) / "penstock.json"
            written.write_bytes(demo.as_json(wanted))
        # A demo's answers may be cut; what a person's own model has begun is let end.
        services.append(demo.gateway_service(wanted, written, journal, 5.0 if file is None else wanted.limits.drain_s + 5.0))
        code = asyncio.run(supervise(services, lambda: _announce(wanted, before)))
    raise typer.Exit(code)


def _places(config: Config, engines: list[Service]) -> list[tuple[str, str, int, str]]:
    places = [("API", config.listen.host, config.listen.port, "--port"), ("admin", config.admin.host, config.admin.port, "--admin-port")]
    if engines:
        places += [(node.name, "127.0.0.1", int(node.url.rpartition(":")[2]), "--engine-port") for node in config.nodes]
    return places


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _announce(config: Config, before: str) -> None:
    from penstock import __version__
    from penstock.supervisor.demo import url

    api, admin = url(config.listen), url(config.admin)
    model = next((model for node in config.nodes for model in node.models), "MODEL")
    key = ' -H "authorization: Bearer $KEY"' if config.keys else ""
    print(
        f"\nPenstock {__version__} is up: one gateway before {before}\n"
        f"  API      {api}/v1  (OpenAI-compatible)\n"
        f"  metrics  {admin}/metrics\n"
        f"  state    {admin}/admin/state\n\n"
        f"Try it:\n"
        f"  curl -N {api}/v1/chat/completions -H 'content-type: application/json'{key} \\\n"
        f'    -d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}\'\n\n'
        f"Ctrl-C stops everything.\n",
        flush=True,
    )
