"""Strict HTTP/1.1 over asyncio protocols: a server for callers, a client for nodes.

rules and head parse (pure), chunked decodes (pure), connection and exchange serve, line and client ask.
"""

from penstock.http1.client import Call, Receiver, Upstream
from penstock.http1.exchange import Exchange
from penstock.http1.server import Server
from penstock.http1.tls import client_context, server_context

__all__ = ["Call", "Exchange", "Receiver", "Server", "Upstream", "client_context", "server_context"]
