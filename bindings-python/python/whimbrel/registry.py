"""Identities: created, read, changed and deleted, for asyncio."""

from __future__ import annotations

import json
from typing import Any, AsyncIterator, Dict, List, Optional, Union

from . import _native
from ._convert import dumped
from ._loop import run
from .identity import DeviceIdentity, ModuleIdentity

__all__ = ["Registry"]


def document_of(identity: Union[str, DeviceIdentity, ModuleIdentity]) -> str:
    """The document of an identity, or of a new device with this id, as text."""
    document = {"deviceId": identity} if isinstance(identity, str) else identity.document
    return dumped("registry", document).decode()


class Registry:
    """Creates, reads, changes and deletes identities.

    Every change is conditional: an identity that was read carries its etag, and changing it fails with `Conflict` when
    somebody else did meanwhile. Every call may also raise `InvalidArgument`, `Unauthorized`, `Throttled`, `Unreachable`,
    `Closed`. Cancelling stops the waiting; the hub may have done it.
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Registry) -> None:
        self._native = native

    async def create(self, device: Union[str, DeviceIdentity]) -> DeviceIdentity:
        """Creates a device: by its id, with keys the hub makes, or as the identity says.

        :raises Conflict: When it exists.
        """
        return DeviceIdentity._of_native(await run(self._native.create(document_of(device))))

    async def get(self, id: str) -> DeviceIdentity:
        """A device.

        :raises NotFound: When there is none.
        """
        return DeviceIdentity._of_native(await run(self._native.get(id)))

    async def update(self, device: DeviceIdentity) -> DeviceIdentity:
        """Changes a device to what the identity says, if its etag is still the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        return DeviceIdentity._of_native(await run(self._native.update(document_of(device))))

    async def delete(self, id: str, etag: Optional[str] = None) -> None:
        """Deletes a device with its commands and modules; its events stay. With an etag, only while it is the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        await run(self._native.delete(id, etag))

    async def list(self, limit: Optional[int] = None) -> List[DeviceIdentity]:
        """Up to `limit` devices (1 to 1000; without one as many as the hub gives), in no particular order. For more, `query`."""
        return [DeviceIdentity._of_native(text) for text in await run(self._native.list(limit))]

    async def query(self, sql: str, page_size: Optional[int] = None) -> AsyncIterator[Dict[str, Any]]:
        """The documents of the devices that a query finds, such as ``SELECT * FROM devices``; `page_size` are fetched at a
        time.

        :raises InvalidArgument: For a query the hub does not understand.
        """
        continuation: Optional[str] = None
        while True:
            documents, continuation = await run(self._native.query(sql, page_size, continuation))
            for text in documents:
                yield json.loads(text)
            if continuation is None:
                return

    async def create_module(self, module: ModuleIdentity) -> ModuleIdentity:
        """Creates a module of a device, with keys the hub makes unless the identity says otherwise.

        :raises Conflict: When it exists.
        :raises NotFound: When there is no such device.
        """
        return ModuleIdentity._of_native(await run(self._native.create_module(document_of(module))))

    async def get_module(self, device_id: str, id: str) -> ModuleIdentity:
        """A module of a device.

        :raises NotFound: When there is none.
        """
        return ModuleIdentity._of_native(await run(self._native.get_module(device_id, id)))

    async def update_module(self, module: ModuleIdentity) -> ModuleIdentity:
        """Changes a module, if its etag is still the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        return ModuleIdentity._of_native(await run(self._native.update_module(document_of(module))))

    async def delete_module(self, device_id: str, id: str, etag: Optional[str] = None) -> None:
        """Deletes a module. With an etag, only while it is the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        await run(self._native.delete_module(device_id, id, etag))

    async def modules(self, device_id: str) -> List[ModuleIdentity]:
        """The modules of a device.

        :raises NotFound: When there is no such device.
        """
        return [ModuleIdentity._of_native(text) for text in await run(self._native.modules(device_id))]

    async def purge_commands(self, id: str) -> int:
        """Ends all commands in the queue of a device as purged; how many.

        :raises NotFound: When there is no such device.
        """
        return await run(self._native.purge_commands(id))  # type: ignore[no-any-return]

    def connection_string(self, identity: Union[DeviceIdentity, ModuleIdentity]) -> Optional[str]:
        """The connection string of a device or module: with its first key, or ``x509=true``. None when it has no way to prove
        itself, or the hub has not said its keys."""
        return connection_string(self._native, identity)


def connection_string(registry: _native.Registry, identity: Union[DeviceIdentity, ModuleIdentity]) -> Optional[str]:
    """The connection string of an identity."""
    if isinstance(identity, ModuleIdentity):
        return registry.module_connection_string(document_of(identity))
    return registry.connection_string(document_of(identity))
