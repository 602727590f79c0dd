"""A key set at a URL: it changes, is dead, and lies."""

import json
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import publish
from issuers import by_pyjwt, claims, jose, make
from server import Server


class KeySets:
    """A server of key sets; `answer` is what it says: a status, headers and a body."""

    def __init__(self, certificate=None, port=0):
        told = self
        self.asked = threading.Semaphore(0)
        self.answer = (200, {}, b"{}")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, headers, body = told.answer
                self.send_response(status)
                for name, value in ({"content-length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    # Whoever has had enough leaves.
                    pass
                told.asked.release()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def says(self, keys: dict) -> None:
        self.answer = (200, {"content-type": "application/jwk-set+json"}, json.dumps(keys).encode())

    def was_asked_since(self) -> None:
        """Waits until it was asked, and what it said was taken: the second of two requests comes after the first was seen to."""
        while self.asked.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self.asked.acquire(timeout=60)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def certificate(tmp_path):
    names = [tmp_path / "cert.pem", tmp_path / "key.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=keys", "-addext", "subjectAltName=IP:127.0.0.1", "-out", names[0], "-keyout", names[1]]
    subprocess.run(command, check=True, capture_output=True)
    return names


def trusting(port: int, scheme: str, **others) -> Server:
    issuer = {"audience": ["tidings"], "jwks_url": f"{scheme}://127.0.0.1:{port}/jwks.json"} | others
    return Server(AUTH__ISSUERS=json.dumps([issuer]), AUTH__JWKS_REFRESH="1s")


def settled(server: Server, token: str) -> int:
    """Publishes, coming back as often as the server says to."""
    while True:
        answer = publish(server, token)
        if answer.status_code != 503:
            return answer.status_code
        time.sleep(int(answer.headers["retry-after"]))


def test_keys_change_without_a_restart(tmp_path, certificate):
    first, second = (make(tmp_path, "ES256", name) for name in ("first", "second"))
    sets = [jose("jwks", [key.jose(key.public) | {"kid": name}]) for key, name in ((first, "a"), (second, "b"))]
    keys = KeySets(certificate)
    keys.says(sets[0])
    server = trusting(keys.port, "https", jwks_ca=str(certificate[0]))
    old, new = by_pyjwt(first, claims(first), "a"), by_pyjwt(second, claims(second), "b")
    assert settled(server, old) == 200
    assert publish(server, new).status_code == 401
    keys.says(sets[1])
    keys.was_asked_since()
    assert publish(server, new).status_code == 200
    assert publish(server, old).status_code == 401
    # Whatever it says from now on, those who have tokens are let in.
    for lie in (
        (200, {}, b"<html>"),
        (200, {}, b'{"keys":[]}'),
        (200, {}, b" " * (2 << 20)),
        (500, {}, json.dumps(sets[0]).encode()),
        (302, {"location": "/elsewhere"}, json.dumps(sets[0]).encode()),
    ):
        keys.answer = lie
        keys.asked.acquire(timeout=60)
        assert publish(server, new).status_code == 200, lie
        assert publish(server, old).status_code == 401, lie
    keys.close()
    assert publish(server, new).status_code == 200
    server.close()


def test_a_server_that_is_dead_at_first_is_waited_for(tmp_path):
    key = make(tmp_path, "EdDSA")
    keys = KeySets()
    keys.close()
    server = trusting(keys.port, "http")
    token = by_pyjwt(key, claims(key), "a")
    answer = publish(server, token)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) <= 10, answer.text
    keys = KeySets(port=keys.port)
    keys.says(jose("jwks", [key.jose(key.public) | {"kid": "a"}]))
    assert settled(server, token) == 200
    keys.close()
    server.close()


def test_a_server_that_nobody_vouches_for_is_not_believed(tmp_path, certificate):
    key = make(tmp_path, "ES256")
    keys = KeySets(certificate)
    keys.says(jose("jwks", [key.jose(key.public) | {"kid": "a"}]))
    server = trusting(keys.port, "https")
    # It comes, sees the certificate, and goes; so no key is ever known.
    assert publish(server, by_pyjwt(key, claims(key), "a")).status_code == 503
    assert not keys.asked.acquire(timeout=3)
    keys.close()
    server.close()
