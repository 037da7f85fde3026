"""What a request costs its tenant: its input and predicted output when it is dispatched, corrected as the output is produced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.core.fairness import OUTPUT_WEIGHT, Fairness
from penstock.core.fleet import Node
from penstock.core.flight import Flight


def cost(flight: Flight) -> float:
    """Expected service, in weighted tokens."""
    return flight.request.prompt_tokens + OUTPUT_WEIGHT * flight.output


def enter(books: Fairness, flight: Flight, flights: Iterable[Flight], now: float) -> None:
    """A request came in. When it is the first of a second tenant, those that are here are counted in, and those on nodes charged."""
    account = books.account(flight.request.tenant, now)
    if not books.several:
        books.counted = False
        return
    if not books.counted:
        books.counted, books.opened_at = True, now
        for other in flights:
            if other.account is None and other is not flight:
                other.account = books.account(other.request.tenant, now)
                books.enter(other.account, now)
                dispatched(books, other, 1, now)
    flight.account = account
    books.enter(account, now)


def asked(flight: Flight) -> None:
    """It came in, and its predictions are made."""
    if flight.account is not None:
        flight.account.asked_s += flight.own_s + flight.output * flight.lane.nodes[0].steps.parts()[1]


def dispatched(books: Fairness, flight: Flight, nodes: int, now: float) -> None:
    account = flight.account
    if account is not None and flight.node is not None:
        flight.charged = flight.output
        books.charge(account, cost(flight), now)
        account.running += 1
        account.held_s += (flight.own_s + flight.output * flight.node.steps.parts()[1]) * books.scale(now)
        books.survey(nodes, now)


def produced(books: Fairness, node: Node, flights: Mapping[int, Flight], now: float) -> None:
    """Charge the streams of a node that have grown longer than predicted for what they have written since."""
    itl_s = node.steps.itl_s
    if not books.several or itl_s <= 0.0:
        return
    for id in node.memory.held:
        flight = flights[id]
        if flight.first >= 0.0 and flight.account is not None and flight.charged >= 0.0:
            tokens = (now - flight.first) / itl_s
            if tokens > flight.charged:
                correct(books, flight, OUTPUT_WEIGHT * (tokens - flight.charged), now)
                flight.charged = tokens


def settle(books: Fairness, flight: Flight, output_tokens: int, now: float) -> None:
    """It ended or failed after `output_tokens`, or, where that is negative, after as many as its time on the node tells."""
    account = flight.account
    if account is None or flight.charged < 0.0 or flight.node is None:
        return
    account.running -= 1
    stopped = output_tokens < 0
    if stopped:
        itl_s = flight.node.steps.itl_s
        output_tokens = int((now - flight.first) / itl_s) if flight.first >= 0.0 and itl_s > 0.0 else 0
    # A stream that was stopped before its first token was given nothing.
    prompt = float(flight.request.prompt_tokens) if stopped and flight.first < 0.0 and flight.request.stream else 0.0
    correct(books, flight, -OUTPUT_WEIGHT * flight.charged - prompt, flight.forwarded)
    correct(books, flight, OUTPUT_WEIGHT * output_tokens, 0.5 * (flight.forwarded + now))
    flight.charged, flight.claims = -1.0, None


def correct(books: Fairness, flight: Flight, tokens: float, at: float) -> None:
    """More or less than what was charged when it was dispatched, wherever it was."""
    if flight.account is not None:
        books.charge(flight.account, tokens, at)
    if flight.claims is not None:
        flight.claims.correct(flight.request.tenant, tokens, at)
