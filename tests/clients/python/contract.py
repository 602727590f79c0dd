"""The gRPC contract, compiled from the .proto files of the repository by Google's own compiler when the tests run."""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

_PROTO = Path(__file__).parents[3] / "proto"


def _compile() -> None:
    # Imported while it is there; nothing of it stays.
    with tempfile.TemporaryDirectory(prefix="tidings-contract-") as directory:
        files = sorted(str(path) for path in (_PROTO / "tidings" / "v1").glob("*.proto"))
        code = protoc.main(["protoc", f"-I{_PROTO}", f"--python_out={directory}", f"--grpc_python_out={directory}", *files])
        assert code == 0, "the contract does not compile"
        sys.path.insert(0, directory)
        try:
            import tidings.v1.publisher_pb2
            import tidings.v1.publisher_pb2_grpc
            import tidings.v1.subscriber_pb2
            import tidings.v1.subscriber_pb2_grpc
        finally:
            sys.path.remove(directory)


_compile()

from tidings.v1 import publisher_pb2, publisher_pb2_grpc, subscriber_pb2, subscriber_pb2_grpc  # noqa: E402

__all__ = ["publisher_pb2", "publisher_pb2_grpc", "subscriber_pb2", "subscriber_pb2_grpc"]
