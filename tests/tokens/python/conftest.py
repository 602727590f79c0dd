"""What the tests share."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from issuers import ALGORITHMS, Key, jose, make
from server import Server


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> dict[str, Key]:
    directory = tmp_path_factory.mktemp("keys")
    return {algorithm: make(directory, algorithm) for algorithm in ALGORITHMS}


@pytest.fixture(scope="session")
def key_set(keys) -> dict:
    """The public keys as jose writes them, each called after its algorithm."""
    public = [key for name, key in keys.items() if name != "HS256"]
    return jose("jwks", [key.jose(key.public) | {"kid": key.algorithm} for key in public])


@pytest.fixture(scope="session")
def server(keys, key_set, tmp_path_factory) -> Iterator[Server]:
    """Trusts each key by itself, and all but the secret again as a key set, of the issuer `https://set.example`."""
    path = tmp_path_factory.mktemp("jwks") / "jwks.json"
    path.write_text(json.dumps(key_set))
    of_set = {"issuer": "https://set.example", "audience": ["tidings"], "jwks_file": str(path)}
    issuers = [key.setting() for key in keys.values()] + [of_set]
    server = Server(AUTH__ISSUERS=json.dumps(issuers))
    yield server
    server.close()


@pytest.fixture(scope="session")
def follow(server) -> Callable[..., int]:
    """Asks for a stream; the answer's status."""

    def ask(token: str | None, topic: str = "orders/ann/1") -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(trust_env=False, timeout=30) as client, client.stream("GET", server.events(topic), headers=headers) as response:
            return response.status_code

    return ask


def publish(server: Server, token: str | None, topic: str = "orders/1") -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.post(f"http://{server.grpc}/v1/publish", json={"topics": [topic], "data": "x"}, headers=headers)
