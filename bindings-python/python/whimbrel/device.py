"""The device program's client, for asyncio."""

from __future__ import annotations

import asyncio
import warnings
from asyncio import get_running_loop
from datetime import datetime, timedelta
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Dict,
    Iterable,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypedDict,
    TypeVar,
    Union,
    overload,
)

from . import _log, _native
from ._convert import Buffer, StrPath, dumped, ms, of_unix_ms, options, unix_ms
from ._loop import Opening, next_of, port_of, run
from .message import Durability, Lane, Message, MessageFields, Overflow, Protocol, with_json
from .values import Account, ConnectionState, Counters, Outcome, ReceiptState

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Command", "ConnectionChanges", "DeviceClient", "DeviceOptions", "Inbox", "Receipt", "Receipts"]

R = TypeVar("R", bound="BaseReceipt")


class DeviceOptions(TypedDict, total=False):
    """Options of `DeviceClient.open`. What is not given, or is None, has its default."""

    outbox: Optional[StrPath]
    """Folder of the outbox; made if it is not there. One client at a time has it open."""
    outbox_in_memory: Optional[bool]
    """No folder: what waits is lost with the process."""
    overflow: Optional[Union[Overflow, str]]
    """What happens to a message for which there is no room."""
    durability: Optional[Union[Durability, str]]
    """What `send` waits for."""
    outbox_max_bytes: Optional[int]
    """Bytes of the outbox, at most."""
    outbox_max_messages: Optional[int]
    """Messages waiting, at most."""
    outbox_max_age: Optional[timedelta]
    """Time to live of messages without one of their own."""
    sync_interval: Optional[timedelta]
    """How often the disk is synced with `Durability.INTERVAL`."""
    kept_outcomes: Optional[int]
    """Outcomes kept for receipts that ask late."""
    server: Optional[str]
    """Where to connect instead of what the connection string says, such as ``mqtt://127.0.0.1:1883``."""
    websocket: Optional[bool]
    """MQTT or AMQP over WebSockets."""
    proxy: Optional[str]
    """HTTP proxy to go through."""
    ca_file: Optional[StrPath]
    """File of certificates to trust, PEM, instead of the system's."""
    ca_pem: Optional[str]
    """The same as text."""
    client_certificate: Optional[StrPath]
    """File of this device's certificate chain, PEM; with `client_key`."""
    client_key: Optional[StrPath]
    """File of its key, PEM."""
    client_certificate_pem: Optional[str]
    """Certificate chain as text; with `client_key_pem`."""
    client_key_pem: Optional[str]
    """Key as text."""
    allow_unencrypted: Optional[bool]
    """Allows a server without TLS that is not this machine."""
    protocol: Optional[Union[Protocol, str]]
    """How to speak to the hub."""
    keep_alive: Optional[timedelta]
    """How soon a dead connection is noticed."""
    connect_timeout: Optional[timedelta]
    """How long connecting may take."""
    poll_interval: Optional[timedelta]
    """How often commands are asked for over HTTP."""
    window: Optional[int]
    """Messages on their way at a time."""
    inbox_window: Optional[int]
    """Commands held here at a time."""
    backoff: Optional[Tuple[timedelta, timedelta]]
    """The shortest and the longest time between attempts to connect."""
    close_deadline: Optional[timedelta]
    """How long `close` goes on delivering."""
    token_lifetime: Optional[timedelta]
    """How long a token made from the shared key is good."""


class BaseReceipt:
    """What receipts of the asyncio and of the blocking client have in common."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Receipt) -> None:
        self._native = native

    @property
    def message_id(self) -> str:
        """The id to find this receipt again with, also after a restart."""
        return self._native.message_id

    def state(self) -> ReceiptState:
        """Where the message is now."""
        return ReceiptState._of_native(self._native.state())

    def __repr__(self) -> str:
        return f"Receipt(message_id={self.message_id!r})"


class Receipt(BaseReceipt):
    """What `send` returns: the message is safe, and this is how to follow it. Dropping it changes nothing."""

    __slots__ = ()

    async def outcome(self) -> Outcome:
        """Waits for the end. Cancelling changes nothing; call again.

        :raises Closed: When the client is closed first: ask again by `message_id` after opening.
        :raises NotFound: When the outcome is no longer kept.
        """
        return Outcome._of_native(await run(self._native.outcome()))


class Receipts(Sequence[R]):
    """The receipts of `send_many`, in the order of the messages; each is made when it is asked for."""

    __slots__ = ("_native", "_of")

    def __init__(self, native: _native.Receipts, of: Type[R]) -> None:
        self._native = native
        self._of = of

    def __len__(self) -> int:
        return len(self._native)

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...
    def __getitem__(self, index: Union[int, slice]) -> Union[R, Sequence[R]]:
        if isinstance(index, slice):
            return [self._of(self._native[at]) for at in range(*index.indices(len(self._native)))]
        length = len(self._native)
        at = index + length if index < 0 else index
        if not 0 <= at < length:
            raise IndexError("there is no such receipt")
        return self._of(self._native[at])

    def __repr__(self) -> str:
        return f"<{len(self)} receipts>"


class Said:
    """The body and properties of a message that came, read when they are asked for."""

    __slots__ = ("_native", "_values")

    def __init__(self, native: Any) -> None:
        self._native = native
        self._values: Optional[Dict[str, Any]] = None

    def _said(self, name: str) -> Any:
        values = self._values
        if values is None:
            values = self._values = self._native.said()
        return values[name]

    @property
    def body(self) -> bytes:
        """The body."""
        return self._native.body  # type: ignore[no-any-return]

    @property
    def properties(self) -> Dict[str, str]:
        """The application properties."""
        return dict(self._said("properties"))

    @property
    def message_id(self) -> Optional[str]:
        """The message id, where the sender gave one."""
        return self._said("message_id")  # type: ignore[no-any-return]

    @property
    def correlation_id(self) -> Optional[str]:
        """The message this one belongs to."""
        return self._said("correlation_id")  # type: ignore[no-any-return]

    @property
    def user_id(self) -> Optional[str]:
        """Whom it is from."""
        return self._said("user_id")  # type: ignore[no-any-return]

    @property
    def content_type(self) -> Optional[str]:
        """Content type of the body."""
        return self._said("content_type")  # type: ignore[no-any-return]

    @property
    def content_encoding(self) -> Optional[str]:
        """Character set of the body."""
        return self._said("content_encoding")  # type: ignore[no-any-return]

    @property
    def creation_time(self) -> Optional[datetime]:
        """When it was made, by the sender's clock; in UTC."""
        return of_unix_ms(self._said("creation_time_ms"))


class BaseCommand(Said):
    """What commands of the asyncio and of the blocking client have in common."""

    __slots__ = ()

    @property
    def sequence(self) -> Optional[int]:
        """Its number in the device's queue, where the protocol tells it (not on MQTT 3.1.1)."""
        return self._said("sequence")  # type: ignore[no-any-return]

    @property
    def enqueued_at(self) -> Optional[datetime]:
        """When the hub took it in, in UTC, where the protocol tells it (not on MQTT 3.1.1)."""
        return of_unix_ms(self._said("enqueued_at_ms"))

    @property
    def delivery_count(self) -> Optional[int]:
        """How many deliveries counted before this one, where the protocol tells it (not on MQTT 3.1.1)."""
        return self._said("delivery_count")  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Command(message_id={self.message_id!r}, sequence={self.sequence!r}, <{len(self.body)} bytes>)"


class Command(BaseCommand):
    """A command, locked for this device until it is settled: later, in any order, from any task. Dropped unsettled it stays
    locked until the hub takes the lock back, and is delivered again then."""

    __slots__ = ()

    async def complete(self) -> None:
        """It was dealt with: the hub removes it, and it is never handed out again.

        Returns when that is recorded on this device, and handed to the connection or answered by the hub, whichever the
        protocol has. Cancelling stops the waiting, not the settling.

        :raises Conflict: When it was settled before.
        :raises LockLost: When the hub did not hold it any more; the redelivery is settled without being handed out.
        :raises DiskFull, JournalIoError: When it could not be recorded: the hub was not told, and the call can be repeated.
        :raises Closed: When the client is closed.
        """
        await run(self._native.settle("complete"), stop=False)

    async def abandon(self) -> None:
        """Not now: the hub delivers it again, a limited number of times. Cancelling stops the waiting, not the settling.

        :raises Unsupported: On MQTT 3.1.1: it stays locked, and can still be completed.
        :raises LockLost: When the hub did not hold it any more; it is delivered again all the same.
        :raises Conflict: When it was settled before.
        :raises Closed: When the client is closed.
        """
        await run(self._native.settle("abandon"), stop=False)

    async def reject(self) -> None:
        """Never: the hub dead-letters it, and it is never handed out again. Otherwise as `complete`.

        :raises Unsupported: On MQTT 3.1.1: it stays locked, and can still be completed.
        """
        await run(self._native.settle("reject"), stop=False)


class Inbox:
    """The commands for a device: an async iterator that ends when the client is closed. Each command goes to one of those
    who wait."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Commands) -> None:
        self._native = native

    async def next(self) -> Optional[Command]:
        """The next command, in the order of their arrival; waits for one. None once the client is closed. Cancelling
        swallows none.

        :raises Unsupported: For a module, which has no commands.
        :raises JournalIoError: When the outbox failed, until the client is opened again.
        :raises WhimbrelError: What the hub said when it refused to send commands; it is asked again on the next connection.
        """
        command = await next_of(self._native)
        return None if command is None else Command(command)

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Command:
        command = await next_of(self._native)
        if command is None:
            raise StopAsyncIteration
        return Command(command)


class ConnectionChanges(AsyncIterator[ConnectionState]):
    """The states of the link, the present one first, then each that is there when it is asked for. It ends when the client
    is closed."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Connections) -> None:
        self._native = native

    def __aiter__(self) -> ConnectionChanges:
        return self

    async def __anext__(self) -> ConnectionState:
        state = await next_of(self._native)
        if state is None:
            raise StopAsyncIteration
        return ConnectionState._of_native(state)


class BaseDeviceClient:
    """What the asyncio and the blocking client have in common."""

    __slots__ = ("__weakref__", "_closed", "_native")

    def __init__(self, native: _native.Device) -> None:
        self._native = native
        self._closed = False

    @property
    def connection(self) -> ConnectionState:
        """What the link to the hub is doing now."""
        return ConnectionState._of_native(self._native.connection())

    def account(self) -> Account:
        """The account of the outbox."""
        return Account._of_native(self._native.account())

    def counters(self) -> Counters:
        """Figures of the outbox."""
        return Counters._of_native(self._native.counters())

    def __repr__(self) -> str:
        return f"<whimbrel device client, {'closed' if self._closed else 'open'}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if not getattr(self, "_closed", True):
            _warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)


def open_device(connection_string: str, given: Mapping[str, Any]) -> _native.Call:
    """The call that opens a device client."""
    unknown = given.keys() - DeviceOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"DeviceClient.open() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    _log.start()
    return _native.Device.open(connection_string, options("device.open", given))


class DeviceClient(BaseDeviceClient):
    """A device's connection to its hub, with a durable outbox. Safe to share between tasks, threads and event loops.

    Opening needs no network, and neither does sending: a message is safe when `send` returns, and delivery goes on in the
    background::

        async with whimbrel.DeviceClient.open(connection_string, outbox="./outbox") as device:
            receipt = await device.send(b"21.5", properties={"room": "attic"})
            print(await receipt.outcome())

    To be closed, or used with ``async with``, which closes it.
    """

    __slots__ = ()

    @staticmethod
    def open(connection_string: str, **options: Unpack[DeviceOptions]) -> Opening[DeviceClient]:
        """Opens the outbox; connecting goes on in the background. Never waits for the network.

        The result is awaited, or used with ``async with``. Cancelling leaves nothing behind but, perhaps, an empty outbox.

        :param connection_string: ``HostName=…;DeviceId=…;SharedAccessKey=…``, or with ``x509=true``.
        :param options: See `DeviceOptions`. Either `outbox` or `outbox_in_memory` is needed.
        :raises InvalidArgument: Naming the option.
        :raises InUse: When another client has the folder open.
        :raises JournalIoError, JournalVersion, DiskFull: From the outbox.
        :raises Unsupported: For what this build leaves out.
        """

        async def opened() -> DeviceClient:
            return DeviceClient(await run(open_device(connection_string, options)))

        return Opening(opened())

    async def send(
        self,
        body: Buffer,
        *,
        lane: Optional[Union[Lane, str]] = None,
        properties: Optional[Mapping[str, str]] = None,
        message_id: Optional[str] = None,
        correlation_id: Optional[str] = None,
        user_id: Optional[str] = None,
        content_type: Optional[str] = None,
        content_encoding: Optional[str] = None,
        creation_time: Optional[datetime] = None,
        message_schema: Optional[str] = None,
        output_name: Optional[str] = None,
        interface_id: Optional[str] = None,
        component: Optional[str] = None,
        expires_in: Optional[timedelta] = None,
        durability: Optional[Union[Durability, str]] = None,
    ) -> Receipt:
        """Takes a message in; returns when it is on the disk, or as safe as was chosen.

        The message is taken in at the first step; cancelling afterwards stops the waiting, and the message stays.

        :param body: Anything with the buffer protocol, C-contiguous; copied. A `str` is refused: encode it, or use
            `send_json`.
        :param lane: and the others: see `Message`.
        :raises InvalidArgument, PayloadTooLarge: For what cannot be sent.
        :raises OutboxFull: When there is no room and the policy is to refuse.
        :raises DiskFull, JournalIoError: When it could not be stored.
        :raises Closed: When the client was closed.
        """
        loop = get_running_loop()
        future: asyncio.Future[_native.Receipt] = loop.create_future()
        fields = (
            lane,
            properties,
            message_id,
            correlation_id,
            user_id,
            content_type,
            content_encoding,
            None if creation_time is None else unix_ms("device.send", "creation_time", creation_time),
            message_schema,
            output_name,
            interface_id,
            component,
            None if expires_in is None else ms("device.send", "expires_in", expires_in),
            durability,
        )
        port = getattr(loop, "_whimbrel_port", None)
        self._native.send(port_of(loop) if port is None else port, future, body, None if fields == _NOTHING else fields)
        return Receipt(await future)

    async def send_json(self, value: Any, **fields: Unpack[MessageFields]) -> Receipt:
        """`send` with `value` as JSON in UTF-8, which `content_type` and `content_encoding` say unless they are given.

        :raises InvalidArgument: For what JSON cannot hold, such as NaN.
        """
        return await self.send(dumped("device.send", value), **with_json(fields))

    async def send_many(self, messages: Iterable[Union[Buffer, Message]]) -> Receipts[Receipt]:
        """Takes many messages in, in order, with one commit. All or none, also when cancelled.

        The messages are read a few at a time, and others have their turn in between.

        :raises InvalidArgument, PayloadTooLarge: For what cannot be sent; ``details["index"]`` says which.
        :raises OutboxFull: When there is no room for all of them.
        :raises DiskFull, JournalIoError: When they could not be stored.
        :raises Closed: When the client was closed.
        """
        batch = _native.Batch()
        iterator = iter(messages)
        while batch.fill(iterator):
            await asyncio.sleep(0)
        return Receipts(await run(self._native.send_all(batch)), Receipt)

    async def receipt(self, message_id: str) -> Optional[Receipt]:
        """The receipt of a message by its id, also after a restart; None when it is not known (any more). Cancelling changes
        nothing.

        :raises JournalIoError, Closed: As elsewhere.
        """
        native = await run(self._native.receipt(message_id))
        return None if native is None else Receipt(native)

    def inbox(self) -> Inbox:
        """The commands for this device. The first call has the hub send them."""
        return Inbox(self._native.inbox())

    def connection_changes(self) -> ConnectionChanges:
        """What the link is doing, now and whenever it changes."""
        return ConnectionChanges(self._native.connection_changes())

    async def flush(self, deadline: timedelta) -> int:
        """Waits until everything is settled or `deadline` is over; returns how many messages are still queued. Never fails
        for a slow network. Cancelling changes nothing.

        :raises Closed: When the client was closed.
        """
        return await run(self._native.flush(ms("device.flush", "deadline", deadline)))  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Takes no more messages and hands out no more commands, goes on delivering for as long as `close_deadline` says,
        disconnects, closes the outbox. What is left stays there for the next time.

        Cancelling stops the waiting, not the closing; call again to wait on. Closing twice is fine.

        :raises JournalIoError, DiskFull: Told once.
        """
        self._closed = True
        await run(self._native.close(), stop=False)

    async def __aenter__(self) -> DeviceClient:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        await self.close()


_NOTHING = (None,) * 14
