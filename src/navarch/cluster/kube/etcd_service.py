"""etcd's gRPC services as `navarch envtest` has them: keys, watches, leases and the status of the one member.

In: connections that another part of the program passes on.  Out: etcd's answers and errors; whatever else is asked for
is UNIMPLEMENTED, with the reason in words. Imported when the first client comes: most harnesses never ask for keys.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

# As in the store's client.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc

from navarch.cluster.kube import etcd_keys, etcd_leases
from navarch.cluster.kube.etcd_keys import Keys, KeysError
from navarch.cluster.kube.etcd_leases import Leases
from navarch.cluster.kube.etcd_watches import Stream
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.world import RealWorld

_CODES: Final[Mapping[str, grpc.StatusCode]] = {
    etcd_keys.FUTURE: grpc.StatusCode.OUT_OF_RANGE,
    etcd_keys.COMPACTED: grpc.StatusCode.OUT_OF_RANGE,
    etcd_keys.NO_LEASE: grpc.StatusCode.NOT_FOUND,
    etcd_leases.EXISTS: grpc.StatusCode.FAILED_PRECONDITION,
}
# Each watch that is open has a thread.
_THREADS: Final = 1000

if TYPE_CHECKING:
    _Handler = grpc.GenericRpcHandler[Any, Any]
else:
    _Handler = grpc.GenericRpcHandler


class Service(_Handler):
    def __init__(self, version: str, refusal: str) -> None:
        self._version, self._refusal = version, refusal
        self._keys = keys = Keys()
        leases = Leases(keys, RealWorld())
        one: dict[str, tuple[Callable[[Any], Any], Any]] = {
            "etcdserverpb.KV/Range": (keys.range, rpc.RangeRequest),
            "etcdserverpb.KV/Put": (keys.put, rpc.PutRequest),
            "etcdserverpb.KV/DeleteRange": (keys.delete, rpc.DeleteRangeRequest),
            "etcdserverpb.KV/Txn": (keys.txn, rpc.TxnRequest),
            "etcdserverpb.KV/Compact": (keys.compact, rpc.CompactionRequest),
            "etcdserverpb.Lease/LeaseGrant": (leases.grant, rpc.LeaseGrantRequest),
            "etcdserverpb.Lease/LeaseRevoke": (leases.revoke, rpc.LeaseRevokeRequest),
            "etcdserverpb.Lease/LeaseTimeToLive": (leases.time_to_live, rpc.LeaseTimeToLiveRequest),
            "etcdserverpb.Lease/LeaseLeases": (leases.all, rpc.LeaseLeasesRequest),
            "etcdserverpb.Maintenance/Status": (self._status, rpc.StatusRequest),
        }
        self._handlers = {
            f"/{name}": grpc.unary_unary_rpc_method_handler(_answering(does), asked.FromString, _bytes)
            for name, (does, asked) in one.items()
        }
        self._handlers["/etcdserverpb.Watch/Watch"] = grpc.stream_stream_rpc_method_handler(
            self._watch, rpc.WatchRequest.FromString, _bytes
        )

        def kept(requests: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            return map(leases.keep_alive, requests)

        self._handlers["/etcdserverpb.Lease/LeaseKeepAlive"] = grpc.stream_stream_rpc_method_handler(
            kept, rpc.LeaseKeepAliveRequest.FromString, _bytes
        )
        self._unknown = grpc.stream_stream_rpc_method_handler(self._refuse)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return self._handlers.get(details.method, self._unknown)

    def _refuse(self, requests: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, self._refusal)
        return iter(())

    def _status(self, asked: rpc.StatusRequest) -> rpc.StatusResponse:
        header = self._keys.header()
        return rpc.StatusResponse(
            header=header, version=self._version, leader=1, raftIndex=header.revision, raftTerm=1, dbSize=1
        )

    def _watch(self, requests: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        stream = Stream(self._keys)

        def taken() -> None:
            # The client is gone when its requests end in an error; what it does not take ends with the stream.
            try:
                for asked in requests:
                    stream.take(asked)
            except grpc.RpcError:
                stream.close()

        context.add_callback(stream.close)
        threading.Thread(target=taken, daemon=True).start()
        try:
            yield from stream
        finally:
            stream.close()


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _answering(does: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(asked: Any, context: grpc.ServicerContext) -> Any:
        try:
            return does(asked)
        except KeysError as error:
            context.abort(_CODES.get(str(error), grpc.StatusCode.INVALID_ARGUMENT), str(error))

    return answer


def serve(address: str, version: str, refusal: str) -> grpc.Server:
    """At an address of gRPC's form."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    server.add_generic_rpc_handlers((Service(version, refusal),))
    server.add_insecure_port(address)
    server.start()
    return server
