import pytest

from server import Server


@pytest.fixture
def start():
    """Starts servers for the time of a test."""
    servers = []

    def start(**settings: str) -> Server:
        servers.append(Server(**settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
