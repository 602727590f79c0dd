"""The payloads that every client must read as they were published."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Payload:
    name: str
    data: str
    type: str = ""

    def event(self, topic: str) -> dict:
        """As it is published."""
        return {"topics": [topic], "type": self.type, "data": self.data}


def _payload(entry: dict) -> Payload:
    return Payload(entry["name"], entry["data"] * entry.get("times", 1), entry.get("type", ""))


PAYLOADS = [_payload(entry) for entry in json.loads((Path(__file__).parent.parent / "payloads.json").read_text(encoding="utf-8"))]


def normalised(text: str) -> str:
    """What is left of a text on its way through an event stream, whoever serves it: all line ends become LF."""
    return re.sub("\r\n?", "\n", text)


def assert_received(received: list, sent: list[Payload]) -> None:
    """Demands that these payloads, and nothing else, were received, in order, each with an id that no other has."""
    for got, payload in zip(received, sent):
        assert got.type == (payload.type or "message"), payload.name
        assert re.fullmatch("[A-Za-z0-9._~-]{1,128}", got.id), payload.name
        # Not compared by `==` in an assertion: the difference of two megabytes would be worked out for the report.
        if got.data != normalised(payload.data):
            raise AssertionError(f"{payload.name}: {got.data[:80]!r} ({len(got.data)}), not {payload.data[:80]!r} ({len(payload.data)})")
    assert len(received) == len(sent)
    assert len({got.id for got in received}) == len(sent), "an id was given twice"
