"""The real program, started on ports of its own, killed and started again."""

import atexit
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
from urllib.parse import urlencode

import httpx

_numbers = itertools.count(1)
_running: set[subprocess.Popen] = set()
atexit.register(lambda: [child.kill() for child in _running])


def _host() -> str:
    # A loopback address of its own: the ports that it had are still free when it is started again, and no client that reconnects from
    # 127.0.0.1 can be given its port, and so be connected with itself.
    return f"127.{128 + ((os.getpid() >> 8) & 63)}.{os.getpid() & 255}.{next(_numbers)}"


class Server:
    """A server; settings are those of the environment without their prefix: `HTTP__RETRY="1s"`."""

    def __init__(self, **settings: str):
        self._directory = tempfile.TemporaryDirectory(prefix="tidings-clients-")
        self._environment = os.environ | {f"TIDINGS_{name}": value for name, value in settings.items()}
        self._environment["TIDINGS_TELEMETRY__FORMAT"] = "json"
        host = _host()
        self.http = self.grpc = self.admin = f"{host}:0"
        self.start()

    def start(self) -> None:
        """Starts it, with the data and the ports that it had, and waits until it is ready."""
        flags = ["--http", self.http, "--grpc", self.grpc, "--admin", self.admin, "--data", f"{self._directory.name}/data"]
        self._child = subprocess.Popen(
            [os.environ["TIDINGS"], "serve", *flags], cwd=self._directory.name, env=self._environment, stderr=subprocess.PIPE, text=True
        )
        _running.add(self._child)
        said = []
        for line in self._child.stderr:
            said.append(line)
            ready = _parsed(line)
            if ready.get("message") == "ready":
                self.http, self.grpc, self.admin = ready["http"], ready["grpc"], ready["admin"]
                # Whatever it says from here on is of no interest, but must be read.
                threading.Thread(target=self._child.stderr.read, daemon=True).start()
                return
        raise AssertionError("the server ended before it was ready:\n" + "".join(said))

    def end(self, by: signal.Signals) -> None:
        """Ends it and waits until it has ended: SIGKILL at once, SIGTERM in good order."""
        if self._child.poll() is None:
            self._child.send_signal(by)
            code = self._child.wait()
            assert by == signal.SIGKILL or code == 0, f"it did not end in good order: {code}"
        _running.discard(self._child)

    def close(self) -> None:
        self.end(signal.SIGKILL)
        self._directory.cleanup()

    def events(self, topic: str, **parameters: str) -> str:
        """The address of a stream of a topic."""
        return f"http://{self.http}/v1/events?{urlencode({'topic': topic} | parameters)}"

    def publish(self, events: list[dict]) -> None:
        """Publishes events, each with `topics`, `data`, `type` and `key`, in order; fails unless all were accepted."""
        body = "".join(json.dumps(event) + "\n" for event in events)
        with httpx.Client(trust_env=False, timeout=60) as client:
            headers = {"content-type": "application/x-ndjson", "connection": "close"}
            response = client.post(f"http://{self.grpc}/v1/publish", content=body, headers=headers)
        response.raise_for_status()
        answers = [json.loads(line) for line in response.text.splitlines()]
        refused = [answer for answer in answers if "results" not in answer]
        if refused or len(answers) != len(events):
            raise NotAccepted(f"{len(answers) - len(refused)} of {len(events)} were accepted; {refused[:1]}")


class NotAccepted(Exception):
    """Not everything that was to be published was accepted."""


def _parsed(line: str) -> dict:
    try:
        return json.loads(line)
    except ValueError:
        return {}
