"""Presets: what a gateway is configured with to be compared over the same world and the same core."""

from __future__ import annotations

import msgspec

from penstock.config import Node, Policy, Rung
from penstock.errors import TraceError
from penstock.facts import Profile
from penstock.knobs import Knobs

PATIENT_S, PATIENT_MAX = 86_400.0, 1_000_000
"""Without an objective nothing is refused, however long it waits and however many do."""
BASELINES = "penstock.sim.baselines"
AT_ONCE = Knobs(depth_s=1e9, kv_share=1e9, sample=1024, queue_ttl_s=PATIENT_S, queue_max=PATIENT_MAX)
"""For routers without a queue: any node takes any number of requests, and all nodes are looked at."""


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    about: str
    policy: Policy
    knobs: Knobs = AT_ONCE
    streams: bool = False
    """It sees first tokens and counts tokens in answers; the baselines relay bytes."""
    deadlines: bool = False
    """The objective is its class's deadline."""
    configured: bool = False
    """Classes, policy and knobs of a configuration file take the place of its own."""
    blind: bool = False
    """It does not look at what prompts have in common."""
    ladder: tuple[Rung, ...] = ()
    """Of the objective's class."""
    knows_profile: bool = False
    """Its configuration names each node's profile."""
    knows_cache: bool = False
    """Its prefix index is as large as the node's cache."""
    scrape_s: float | None = None
    """It reads nodes' metrics this often, beside the probes."""

    def node(self, node: Node, profile: Profile) -> Node:
        """The node as this preset's configuration has it."""
        if self.knows_profile:
            return msgspec.structs.replace(node, profile=profile.name)
        cache = profile.cache_tokens or profile.kv_tokens if self.knows_cache else None
        return msgspec.structs.replace(node, max_running=1_000_000_000, kv_tokens=cache)

    def patient(self) -> Knobs:
        """Its knobs where no objective bounds a wait."""
        return msgspec.structs.replace(self.knobs, queue_ttl_s=PATIENT_S, queue_max=PATIENT_MAX)


def _rule(*names: str, weights: tuple[float, ...] = (1.0,), pick: str = f"{BASELINES}:MaxScore") -> Policy:
    scores = {f"{BASELINES}:{name}": weight for name, weight in zip(names, weights, strict=True)}
    return Policy(order="fcfs", admit="bounded", score=scores, pick=pick)


PRESETS: dict[str, Preset] = {
    "penstock": Preset(
        about="this gateway with its defaults",
        policy=Policy(),
        knobs=Knobs(),
        streams=True,
        deadlines=True,
        configured=True,
        knows_profile=True,
    ),
    "fifo-rr": Preset(about="first come, first served, nodes in turn (nginx's default)", policy=_rule("RoundRobin")),
    # Mooncake (FAST'25) and llm-d's precise-prefix report compare themselves with these two.
    "random": Preset(about="any node, all alike (llm-d's random-picker)", policy=_rule("AnyNode")),
    "load-balance": Preset(about="fewest tokens in flight (Mooncake's load balancing)", policy=_rule("LeastTokens")),
    "least-requests": Preset(about="fewest requests in flight (nginx least_conn)", policy=_rule("LeastRequests")),
    "two-choices": Preset(
        about="the emptier of two at random (Envoy's LEAST_REQUEST, choice_count 2)", policy=_rule("LeastRequests", pick="two")
    ),
    "consistent-hash": Preset(
        about="consistent hashing with bounded loads, factor 1.25 (arXiv:1608.01350)", policy=_rule("ConsistentHash")
    ),
    "sglang-cache-aware": Preset(about="SGLang router's cache_aware with its defaults", policy=_rule("SglangCacheAware")),
    # llm-d: config/charts/inferencepool/templates/epp-config.yaml, default-plugins.yaml: queue 2, kv-cache-utilization 2, prefix-cache 3;
    # the endpoint picker's --refresh-metrics-interval is 50 ms by default.
    "llmd-default": Preset(
        about="llm-d's scheduler with its default weights: queue 2, KV 2, prefix 3",
        policy=_rule("LlmdQueue", "LlmdKvUsage", "LlmdPrefix", weights=(2.0, 2.0, 3.0)),
        knows_cache=True,
        scrape_s=0.05,
    ),
    "llmd-load": Preset(
        about="llm-d's scheduler without prefixes: queue 1, KV 1",
        policy=_rule("LlmdQueue", "LlmdKvUsage", weights=(1.0, 1.0)),
        scrape_s=0.05,
    ),
    "penstock-tickets": Preset(
        about="the same; what cannot be served in time is given a ticket",
        policy=Policy(),
        knobs=Knobs(),
        streams=True,
        deadlines=True,
        ladder=(Rung.WAIT, Rung.TICKET),
        knows_profile=True,
    ),
}


def preset(name: str) -> Preset:
    """Raises TraceError naming the known ones."""
    if name not in PRESETS:
        raise TraceError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
