"""Clients that do not reconnect go on with the last id that they read: through restarts nothing is lost and nothing repeated."""

import signal
import threading

import httpx
import pytest

from readers import READERS
from server import NotAccepted, Server

TOPIC = "clients/test:1"
ENDS = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]


def keyed(data: str) -> dict:
    return {"topics": [TOPIC], "type": "order", "data": data, "key": data}


@pytest.mark.parametrize("reader", READERS)
def test_goes_on_through_restarts(start, reader):
    server = start(DRAIN__WINDOW="500ms")
    received, sent = [], []
    for number, how in enumerate(ENDS):
        batch = [keyed(f"{number}-{index}") for index in range(300)]
        sent += batch
        # Ended in the middle of publishing, as a rule: what became of the rest is unknown to the publisher, who asks again with the same keys.
        publisher = threading.Thread(target=attempt, args=(server, batch))
        publisher.start()
        stream = reader(server.events(TOPIC, since="earliest"), received[-1].id if received else "")
        received.append(next(stream))
        server.end(how)
        received += stream
        publisher.join()
        server.start()
        server.publish(batch)
    sent.append(keyed("the-end"))
    server.publish(sent[-1:])
    for event in reader(server.events(TOPIC), received[-1].id):
        received.append(event)
        if event.data == "the-end":
            break
    assert [(event.type, event.data) for event in received] == [(event["type"], event["data"]) for event in sent]
    assert len({event.id for event in received}) == len(sent)


def attempt(server: Server, events: list[dict]) -> None:
    try:
        server.publish(events)
    except (httpx.HTTPError, NotAccepted):
        pass
