"""Every hard payload is read as it was published."""

import pytest

from payloads import PAYLOADS, Payload, assert_received
from readers import READERS

TOPIC = "clients/test:1"
END = Payload("the end", "the end")


@pytest.mark.parametrize("reader", READERS)
def test_reads_every_hard_payload(start, reader):
    server = start(LIMITS__DATA_BYTES="1MiB")
    server.publish([payload.event(TOPIC) for payload in PAYLOADS])
    received = []
    for event in reader(server.events(TOPIC, since="earliest")):
        received.append(event)
        # Level with the log: what is published from here on comes live.
        if len(received) == len(PAYLOADS):
            server.publish([payload.event(TOPIC) for payload in [*PAYLOADS, END]])
        if event.data == END.data:
            break
    assert_received(received, [*PAYLOADS, *PAYLOADS, END])


@pytest.mark.parametrize("reader", READERS)
def test_every_id_resumes_after_its_event(start, reader):
    server = start(LIMITS__DATA_BYTES="1MiB")
    short = [payload for payload in PAYLOADS if len(payload.data) < 1000]
    server.publish([payload.event(TOPIC) for payload in short])
    received = []
    last_event_id = ""
    for _ in short:
        event = next(reader(server.events(TOPIC, since="earliest"), last_event_id))
        received.append(event)
        last_event_id = event.id
    assert_received(received, short)
