"""gRPC health and reflection, as Google's own clients ask for them."""

import signal

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def channel():
    channels = []

    def channel(server):
        channels.append(grpc.insecure_channel(server.grpc, options=[("grpc.enable_http_proxy", 0)]))
        return channels[-1]

    yield channel
    for opened in channels:
        opened.close()


@pytest.mark.parametrize("service", ["", "tidings.v1.Publisher", "tidings.v1.Subscriber"])
def test_it_is_healthy(start, channel, service):
    health = health_pb2_grpc.HealthStub(channel(start()))
    assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_the_health_of_nothing_is_not_found(start, channel):
    health = health_pb2_grpc.HealthStub(channel(start()))
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="tidings.v1.Nothing"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_watcher_is_told_of_the_drain(start, channel):
    server = start(DRAIN__WINDOW="500ms")
    told = health_pb2_grpc.HealthStub(channel(server)).Watch(health_pb2.HealthCheckRequest(service="tidings.v1.Publisher"))
    assert next(told).status == SERVING
    server.end(signal.SIGTERM)
    assert next(told).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_reflection_is_enough_to_publish(start, channel):
    opened = channel(start(GRPC__REFLECTION="true"))
    database = ProtoReflectionDescriptorDatabase(opened)
    assert {"tidings.v1.Publisher", "tidings.v1.Subscriber", "grpc.health.v1.Health"} <= set(database.get_services())
    method = DescriptorPool(database).FindServiceByName("tidings.v1.Publisher").FindMethodByName("Publish")
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    publish = opened.unary_unary(
        "/tidings.v1.Publisher/Publish", request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    assert publish(request(topics=["reflected"], data="x")).results[0].sequence > 0


def test_without_the_setting_there_is_no_reflection(start, channel):
    with pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(channel(start())).get_services()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
