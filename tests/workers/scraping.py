"""The metrics of a process, read over HTTP as Prometheus reads them."""

import urllib.request


def metrics_page(address: str) -> str:
    """All of it, from `host:port`. Blocks."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
