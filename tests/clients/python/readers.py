"""Clients that do not reconnect by themselves, each as a generator of the events of one stream, up to its end."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import httpx
import requests
import sseclient
import urllib3
from httpx_sse import connect_sse


@dataclass(frozen=True)
class Received:
    id: str
    type: str
    data: str


def httpx_sse(url: str, last_event_id: str = "") -> Iterator[Received]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    with httpx.Client(trust_env=False, timeout=None) as client, connect_sse(client, "GET", url, headers=headers) as source:
        try:
            for event in source.iter_sse():
                yield Received(event.id, event.event, event.data)
        except httpx.TransportError:
            # The server was killed.
            return


def sseclient_py(url: str, last_event_id: str = "") -> Iterator[Received]:
    """As its documentation has it, with `requests`."""
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    with requests.Session() as session:
        session.trust_env = False
        with session.get(url, headers=headers, stream=True) as response:
            response.raise_for_status()
            try:
                for event in sseclient.SSEClient(response).events():
                    yield Received(event.id, event.event, event.data)
            except requests.exceptions.ChunkedEncodingError:
                # The server was killed.
                return


def sseclient_py_urllib3(url: str, last_event_id: str = "") -> Iterator[Received]:
    """As its documentation has it, with `urllib3`."""
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", url, headers=headers, preload_content=False)
        assert response.status == 200
        with closing(response):
            try:
                for event in sseclient.SSEClient(response).events():
                    yield Received(event.id, event.event, event.data)
            except urllib3.exceptions.HTTPError:
                # The server was killed.
                return


def curl(url: str, last_event_id: str = "") -> Iterator[Received]:
    """`curl -N`, whose lines are read to the letter of the event-stream format."""
    command = ["curl", "--no-buffer", "--silent", "--noproxy", "*", url]
    if last_event_id:
        command += ["--header", f"last-event-id: {last_event_id}"]
    # Its own end comes with that of the stream, or with a signal when the test has read enough.
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child, closing(child.stdout):
        try:
            yield from parsed(child.stdout)
        finally:
            os.kill(child.pid, signal.SIGTERM) if child.poll() is None else None


def parsed(lines: Iterator[bytes]) -> Iterator[Received]:
    """The events of a stream of bytes; fails on whatever a strict server has no reason to send."""
    event_id, event_type, data = "", "", []
    for raw in lines:
        if not raw.endswith(b"\n"):
            # Cut off in the middle of a line.
            return
        assert b"\r" not in raw, raw[:200]
        line = raw[:-1].decode("utf-8")
        field, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "" if colon:
                assert line == ":", "a comment says nothing"
            case "":
                assert data, "an event without data"
                yield Received(event_id, event_type or "message", "\n".join(data))
                event_type, data = "", []
            case "id":
                assert data, "an id comes last"
                event_id = value
            case "event":
                assert not data, "a type comes before the data"
                event_type = value
            case "data":
                data.append(value)
            case "retry":
                assert value.isdecimal() and not event_type and not data, line
            case _:
                raise AssertionError(f"an unknown field: {line}")


READERS = [httpx_sse, sseclient_py, sseclient_py_urllib3, curl]
