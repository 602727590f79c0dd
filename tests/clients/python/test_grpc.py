"""Google's own gRPC, from end to end: publishing, following, errors with their details."""

import signal
from contextlib import closing

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from contract import publisher_pb2 as publisher
from contract import publisher_pb2_grpc as publisher_grpc
from contract import subscriber_pb2 as subscriber
from contract import subscriber_pb2_grpc as subscriber_grpc
from payloads import PAYLOADS

TOPIC = "clients/test:1"
# What the largest payload needs with its envelope.
OPTIONS = [("grpc.max_receive_message_length", 4 << 20), ("grpc.enable_http_proxy", 0)]


@pytest.fixture
def connect():
    """Connects to servers for the time of a test: their publisher and their subscriber."""
    channels = []

    def connect(server):
        channels.append(grpc.insecure_channel(server.grpc, options=OPTIONS))
        return publisher_grpc.PublisherStub(channels[-1]), subscriber_grpc.SubscriberStub(channels[-1])

    yield connect
    for channel in channels:
        channel.close()


def follow(stub, **request):
    """The messages of a stream, up to its end."""
    call = stub.Subscribe(subscriber.SubscribeRequest(topics=[TOPIC], **request))
    return closing(Following(call))


class Following:
    def __init__(self, call):
        self._call = call

    def __iter__(self):
        return self._call

    def close(self):
        self._call.cancel()


def details(error: grpc.RpcError) -> dict:
    """The details of a status, by the names of their types."""
    status = rpc_status.from_call(error)
    assert status is not None, "a status without details"
    assert status.code == error.code().value[0]
    found = {}
    for packed in status.details:
        message = {
            name: getattr(error_details_pb2, name)() for name in ("BadRequest", "ErrorInfo", "RetryInfo")
        }[packed.TypeName().rpartition(".")[2]]
        assert packed.Unpack(message)
        found[type(message).__name__] = message
    return found


def test_every_payload_comes_as_it_was_published(start, connect):
    publish, subscribe = connect(start(LIMITS__DATA_BYTES="1MiB"))
    sent = [publisher.PublishRequest(topics=[TOPIC], type=payload.type, data=payload.data) for payload in PAYLOADS]
    sequences = [publish.Publish(request).results[0].sequence for request in sent]
    assert sequences == sorted(set(sequences))
    read = []
    with follow(subscribe, earliest=True) as stream:
        for message in stream:
            match message.WhichOneof("message"):
                case "event":
                    read.append(message.event)
                case "level":
                    break
    # Line ends too: this is no event stream.
    assert [event.sequence for event in read] == sequences
    for event, payload in zip(read, PAYLOADS):
        assert (event.topic, event.type) == (TOPIC, payload.type)
        assert (event.data == payload.data) is True, payload.name


def test_a_stream_of_publishes_is_answered_in_order(start, connect):
    publish, _ = connect(start())
    wrong = {7, 8, 63}
    requests = [publisher.PublishRequest(topics=["" if n in wrong else TOPIC], data=f"{n}", key=f"{n}") for n in range(200)]
    answers = list(publish.PublishStream(iter(requests)))
    assert len(answers) == len(requests)
    sequences = []
    for n, answer in enumerate(answers):
        if n in wrong:
            assert (answer.error.code, answer.error.field) == (code_pb2.INVALID_ARGUMENT, "topics[0]")
        else:
            (result,) = answer.published.results
            assert not result.repeated
            sequences.append(result.sequence)
    assert sequences == sorted(set(sequences))
    again = [answer.published.results[0] for answer in publish.PublishStream(r for n, r in enumerate(requests) if n not in wrong)]
    assert [(result.sequence, result.repeated) for result in again] == [(sequence, True) for sequence in sequences]


def test_one_event_to_many_topics(start, connect):
    publish, _ = connect(start())
    topics = [f"many/{n}" for n in range(1000)]
    results = publish.Publish(publisher.PublishRequest(topics=topics, data="x")).results
    assert [result.topic for result in results] == topics
    assert all(result.sequence > 0 and not result.HasField("error") for result in results)


def test_a_follower_resumes_through_restarts(start, connect):
    server = start(DRAIN__WINDOW="500ms")
    cursor, read = "", []
    for number, how in enumerate([signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]):
        publish, subscribe = connect(server)
        requests = [publisher.PublishRequest(topics=[TOPIC], data=f"{number}-{n}") for n in range(100)]
        list(publish.PublishStream(iter(requests)))
        with follow(subscribe, cursor=cursor, earliest=True) as stream:
            # A part of them; the rest is asked for again after the restart.
            for message in stream:
                if message.WhichOneof("message") == "event":
                    cursor = message.cursor
                    read.append(message.event.data)
                if len(read) == number * 100 + 50:
                    break
            server.end(how)
        server.start()
        publish, subscribe = connect(server)
        with follow(subscribe, cursor=cursor) as stream:
            for message in stream:
                cursor = message.cursor or cursor
                if message.WhichOneof("message") == "level":
                    break
                read.append(message.event.data)
    assert read == [f"{number}-{n}" for number in range(3) for n in range(100)]


def test_a_drain_ends_a_follower_with_unavailable(start, connect):
    server = start(DRAIN__WINDOW="100ms")
    _, subscribe = connect(server)
    with follow(subscribe, earliest=True) as stream:
        assert next(iter(stream)).WhichOneof("message") == "level"
        server.end(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            next(iter(stream))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert details(caught.value)["RetryInfo"].retry_delay.ToMilliseconds() > 0


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("topics", dict(topics=[])),
        ("topics[1]", dict(topics=["a", "b c"])),
        ("topics[1]", dict(topics=["a", "a"])),
        ("type", dict(topics=["a"], type="message")),
        ("type", dict(topics=["a"], type="a\nb")),
        ("data", dict(topics=["a"], data="a\0b")),
        ("data", dict(topics=["a"], data="x" * 65537)),
        ("key", dict(topics=["a"], key="k" * 256)),
        ("key", dict(topics=["a"], key="k", ephemeral=True)),
    ],
)
def test_a_wrong_field_is_named(start, connect, field, request_):
    publish, _ = connect(start())
    with pytest.raises(grpc.RpcError) as caught:
        publish.Publish(publisher.PublishRequest(**request_))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    found = details(caught.value)
    assert [violation.field for violation in found["BadRequest"].field_violations] == [field]
    assert found["ErrorInfo"].domain == "tidings"
    assert found["ErrorInfo"].reason


@pytest.mark.parametrize(
    ("field", "request_"), [("topics", dict(topics=[])), ("topics[0]", dict(topics=["a b"])), ("topics", dict(topics=[f"{n}" for n in range(65)]))]
)
def test_a_wrong_subscription_is_named(start, connect, field, request_):
    _, subscribe = connect(start())
    with pytest.raises(grpc.RpcError) as caught:
        next(subscribe.Subscribe(subscriber.SubscribeRequest(**request_)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in details(caught.value)["BadRequest"].field_violations] == [field]


def test_one_stream_too_many_is_told_when_to_come_back(start, connect):
    _, subscribe = connect(start(LIMITS__CONNECTIONS="1"))
    with follow(subscribe, earliest=True) as stream:
        assert next(iter(stream)).WhichOneof("message") == "level"
        with pytest.raises(grpc.RpcError) as caught, follow(subscribe) as second:
            next(iter(second))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(caught.value)["RetryInfo"].retry_delay.ToMilliseconds() > 0


def test_a_cursor_of_elsewhere_is_a_gap(start, connect):
    _, subscribe = connect(start())
    for cursor, reason in [("garbage", "REASON_UNKNOWN"), ("1-zzzzzz.5", "REASON_FORKED")]:
        with follow(subscribe, cursor=cursor) as stream:
            message = next(iter(stream))
            assert message.WhichOneof("message") == "gap"
            assert message.gap.reason == getattr(subscriber.Gap, reason)
            assert message.cursor
