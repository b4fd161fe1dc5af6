"""A KMS v2 plugin at a Unix socket, as cloud providers have them: it encrypts by a key whose id a test can change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from navarch.api.protobuf_messages import message_class
from navarch.store.encryption.providers import AESGCM, DecryptError


class Plugin:
    def __init__(self, folder: Path) -> None:
        self.endpoint = f"unix://{folder / 'kms.sock'}"
        self.key_id = "1"
        self.healthz = "ok"
        # Whether it decrypts nothing.
        self.refuses = False
        self.asked: list[str] = []
        self._server = grpc.aio.server()
        names = {"Status": "StatusRequest", "Encrypt": "EncryptRequest", "Decrypt": "DecryptRequest"}
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                getattr(self, f"_{method.lower()}"),
                request_deserializer=message_class(f"kms/v2.{request}").FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for method, request in names.items()
        }
        generic = grpc.method_handlers_generic_handler("v2.KeyManagementService", handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_insecure_port(self.endpoint)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    def _key(self, key_id: str) -> AESGCM:
        return AESGCM("plugin", key_id.encode().rjust(32, b"0"))

    async def _status(self, request: Any, context: Any) -> Any:
        return message_class("kms/v2.StatusResponse")(version="v2", healthz=self.healthz, keyID=self.key_id)

    async def _encrypt(self, request: Any, context: Any) -> Any:
        self.asked.append("encrypt")
        ciphertext = self._key(self.key_id).encrypt(request.plaintext, "seed")
        return message_class("kms/v2.EncryptResponse")(
            ciphertext=ciphertext, keyID=self.key_id, annotations={"plugin.example.com/a": b"b"}
        )

    async def _decrypt(self, request: Any, context: Any) -> Any:
        self.asked.append("decrypt")
        if self.refuses:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "sealed")
        assert request.annotations == {"plugin.example.com/a": b"b"}
        try:
            plaintext = self._key(request.keyID).decrypt(request.ciphertext, "seed")
        except DecryptError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return message_class("kms/v2.DecryptResponse")(plaintext=plaintext)
