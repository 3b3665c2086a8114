"""The same clients, blocking: the same names and arguments as in `whimbrel`, without ``await``.

Everything that waits takes `timeout`, a `timedelta`; when it is over, `DeliveryTimeout` is raised and what was waited for goes
on. Waiting lets other threads run, and ends when a signal handler raises, as Ctrl-C does. Objects may be shared between
threads.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Mapping, Optional, Type, TypeVar, Union

from . import _native
from ._convert import Buffer, dumped, maybe_ms, ms, unix_ms
from ._loop import Stream
from .device import _NOTHING, BaseCommand, BaseDeviceClient, BaseReceipt, DeviceOptions, Receipts, open_device
from .events import BaseEvent, EventsOptions, events_call
from .identity import DeviceIdentity, ModuleIdentity
from .message import CommandFields, Durability, Lane, Message, MessageFields, with_json
from .registry import connection_string, document_of
from .service import (
    BaseFeedbackBatch,
    BaseServiceClient,
    BaseTracked,
    CommandOutcome,
    ServiceOptions,
    open_service,
    send_call,
)
from .values import ConnectionState, Outcome

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Command",
    "ConnectionChanges",
    "DeviceClient",
    "Event",
    "EventReader",
    "FeedbackBatch",
    "FeedbackReader",
    "Inbox",
    "Message",
    "Receipt",
    "Registry",
    "ServiceClient",
    "Tracked",
]

T = TypeVar("T")


def _wait(call: _native.Call, timeout: Optional[timedelta] = None) -> Any:
    return call.wait(maybe_ms("wait", "timeout", timeout))


def _next(stream: Stream, timeout: Optional[timedelta]) -> Any:
    limit = maybe_ms("wait", "timeout", timeout)
    until = None if limit is None else time.monotonic() + limit / 1000
    while True:
        taken = stream.take()
        if taken is not None:
            return taken[0]
        try:
            # What is there when the time is over is still found by the look before.
            stream.ready().wait(None if until is None else max(0, round((until - time.monotonic()) * 1000)))
        except BaseException:
            # The news may have been for this thread; another one has to look.
            stream.pass_on()
            raise


class Receipt(BaseReceipt):
    """What `send` returns: the message is safe, and this is how to follow it."""

    __slots__ = ()

    def outcome(self, *, timeout: Optional[timedelta] = None) -> Outcome:
        """Waits for the end.

        :raises DeliveryTimeout: When `timeout` is over first; call again.
        :raises Closed: When the client is closed first: ask again by `message_id` after opening.
        :raises NotFound: When the outcome is no longer kept.
        """
        return Outcome._of_native(_wait(self._native.outcome(), timeout))


class Command(BaseCommand):
    """A command, locked for this device until it is settled; see `whimbrel.Command`, also for the errors."""

    __slots__ = ()

    def complete(self, *, timeout: Optional[timedelta] = None) -> None:
        """It was dealt with: the hub removes it, and it is never handed out again."""
        _wait(self._native.settle("complete"), timeout)

    def abandon(self, *, timeout: Optional[timedelta] = None) -> None:
        """Not now: the hub delivers it again, a limited number of times."""
        _wait(self._native.settle("abandon"), timeout)

    def reject(self, *, timeout: Optional[timedelta] = None) -> None:
        """Never: the hub dead-letters it, and it is never handed out again."""
        _wait(self._native.settle("reject"), timeout)


class Inbox:
    """The commands for a device: an iterator that ends when the client is closed."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Commands) -> None:
        self._native = native

    def next(self, *, timeout: Optional[timedelta] = None) -> Optional[Command]:
        """The next command, in the order of their arrival; waits for one. None once the client is closed.

        :raises DeliveryTimeout: When there is none within `timeout`; the others: see `whimbrel.Inbox.next`.
        """
        command = _next(self._native, timeout)
        return None if command is None else Command(command)

    def __iter__(self) -> Inbox:
        return self

    def __next__(self) -> Command:
        return _or_stop(self.next())


class ConnectionChanges:
    """The states of the link, the present one first. It ends when the client is closed."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Connections) -> None:
        self._native = native

    def next(self, *, timeout: Optional[timedelta] = None) -> Optional[ConnectionState]:
        """The next state; waits for a change. None once the client is closed.

        :raises DeliveryTimeout: When nothing changes within `timeout`.
        """
        state = _next(self._native, timeout)
        return None if state is None else ConnectionState._of_native(state)

    def __iter__(self) -> ConnectionChanges:
        return self

    def __next__(self) -> ConnectionState:
        return _or_stop(self.next())


class DeviceClient(BaseDeviceClient):
    """A device's connection to its hub, with a durable outbox; see `whimbrel.DeviceClient`, also for the errors::

        with whimbrel.sync.DeviceClient.open(connection_string, outbox="./outbox") as device:
            receipt = device.send(b"21.5", properties={"room": "attic"})
            print(receipt.outcome())
    """

    __slots__ = ()

    @staticmethod
    def open(
        connection_string: str, *, timeout: Optional[timedelta] = None, **options: Unpack[DeviceOptions]
    ) -> DeviceClient:
        """Opens the outbox; connecting goes on in the background. Never waits for the network."""
        return DeviceClient(_wait(open_device(connection_string, options), timeout))

    def send(
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
        timeout: Optional[timedelta] = None,
    ) -> Receipt:
        """Takes a message in; returns when it is on the disk, or as safe as was chosen. It waits for the disk only.

        :raises DeliveryTimeout: When the disk took longer than `timeout`; the message is in.
        """
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
        said = None if fields == _NOTHING else fields
        if timeout is None:
            return Receipt(self._native.send_wait(body, said))
        limit = ms("device.send", "timeout", timeout)
        return Receipt(self._native.send_call(body, said).wait(limit))

    def send_json(
        self, value: Any, *, timeout: Optional[timedelta] = None, **fields: Unpack[MessageFields]
    ) -> Receipt:
        """`send` with `value` as JSON in UTF-8, which `content_type` and `content_encoding` say unless they are given."""
        return self.send(dumped("device.send", value), timeout=timeout, **with_json(fields))

    def send_many(
        self, messages: Iterable[Union[Buffer, Message]], *, timeout: Optional[timedelta] = None
    ) -> Receipts[Receipt]:
        """Takes many messages in, in order, with one commit; all or none.

        :raises DeliveryTimeout: When the disk took longer than `timeout`; they are all in, or none.
        """
        batch = _native.Batch()
        iterator = iter(messages)
        while batch.fill(iterator):
            pass
        return Receipts(_wait(self._native.send_all(batch), timeout), Receipt)

    def receipt(self, message_id: str, *, timeout: Optional[timedelta] = None) -> Optional[Receipt]:
        """The receipt of a message by its id, also after a restart; None when it is not known (any more)."""
        native = _wait(self._native.receipt(message_id), timeout)
        return None if native is None else Receipt(native)

    def inbox(self) -> Inbox:
        """The commands for this device. The first call has the hub send them."""
        return Inbox(self._native.inbox())

    def connection_changes(self) -> ConnectionChanges:
        """What the link is doing, now and whenever it changes."""
        return ConnectionChanges(self._native.connection_changes())

    def flush(self, deadline: timedelta) -> int:
        """Waits until everything is settled or `deadline` is over; returns how many messages are still queued."""
        return _wait(self._native.flush(ms("device.flush", "deadline", deadline)))  # type: ignore[no-any-return]

    def close(self, *, timeout: Optional[timedelta] = None) -> None:
        """Takes no more messages and hands out no more commands, goes on delivering for as long as `close_deadline` says,
        disconnects, closes the outbox. What is left stays there for the next time. Closing twice is fine."""
        self._closed = True
        _wait(self._native.close(), timeout)

    def __enter__(self) -> DeviceClient:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        self.close()


class Tracked(BaseTracked):
    """A command the hub has taken in."""

    __slots__ = ()

    def outcome(self, *, timeout: Optional[timedelta] = None) -> CommandOutcome:
        """Waits until the command has ended; see `whimbrel.Tracked.outcome`.

        :raises DeliveryTimeout: When `timeout` is over first; call again.
        """
        return CommandOutcome(_wait(self._native.outcome(), timeout))


class FeedbackBatch(BaseFeedbackBatch):
    """Some feedback records, locked for this reader; see `whimbrel.FeedbackBatch`."""

    __slots__ = ()

    def complete(self, *, timeout: Optional[timedelta] = None) -> None:
        """Removes the records from the queue."""
        _wait(self._native.settle(True), timeout)

    def abandon(self, *, timeout: Optional[timedelta] = None) -> None:
        """Gives the records back; the hub delivers them again, a limited number of times."""
        _wait(self._native.settle(False), timeout)


class FeedbackReader:
    """Takes feedback from the hub's queue, a batch at a time; see `whimbrel.FeedbackReader`."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Feedbacks) -> None:
        self._native = native

    def next(self, *, timeout: Optional[timedelta] = None) -> Optional[FeedbackBatch]:
        """The next batch; waits for it. None at the end.

        :raises DeliveryTimeout: When there is none within `timeout`.
        """
        batch = _next(self._native, timeout)
        return None if batch is None else FeedbackBatch(batch)

    def __iter__(self) -> FeedbackReader:
        return self

    def __next__(self) -> FeedbackBatch:
        return _or_stop(self.next())

    def close(self, *, timeout: Optional[timedelta] = None) -> None:
        """Stops reading. Batches that were not settled go back to the queue."""
        _wait(self._native.close(), timeout)

    def __enter__(self) -> FeedbackReader:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        self.close()


class Event(BaseEvent):
    """A message of a device, as it was stored."""

    __slots__ = ()

    def checkpoint(self, *, timeout: Optional[timedelta] = None) -> None:
        """Stores that this event, and all before it in its partition, were dealt with; see `whimbrel.Event.checkpoint`."""
        _wait(self._native.checkpoint(), timeout)


class EventReader:
    """A stream of events, in order within each partition; see `whimbrel.EventReader`."""

    __slots__ = ("_name", "_native")

    def __init__(self, native: _native.Events, name: str) -> None:
        self._native = native
        self._name = name

    @property
    def name(self) -> str:
        """What this reader is called among those that share partitions; random."""
        return self._name

    def next(self, *, timeout: Optional[timedelta] = None) -> Optional[Event]:
        """The next event; waits for it. None at the end.

        :raises DeliveryTimeout: When there is none within `timeout`.
        """
        event = _next(self._native, timeout)
        return None if event is None else Event(event)

    def __iter__(self) -> EventReader:
        return self

    def __next__(self) -> Event:
        return _or_stop(self.next())

    def close(self, *, timeout: Optional[timedelta] = None) -> None:
        """Stops reading and gives up its partitions, so that others take over at once."""
        _wait(self._native.close(), timeout)

    def __enter__(self) -> EventReader:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        self.close()


class Registry:
    """Creates, reads, changes and deletes identities; see `whimbrel.Registry`, also for the errors."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Registry) -> None:
        self._native = native

    def create(
        self, device: Union[str, DeviceIdentity], *, timeout: Optional[timedelta] = None
    ) -> DeviceIdentity:
        """Creates a device: by its id, with keys the hub makes, or as the identity says."""
        return DeviceIdentity._of_native(_wait(self._native.create(document_of(device)), timeout))

    def get(self, id: str, *, timeout: Optional[timedelta] = None) -> DeviceIdentity:
        """A device."""
        return DeviceIdentity._of_native(_wait(self._native.get(id), timeout))

    def update(self, device: DeviceIdentity, *, timeout: Optional[timedelta] = None) -> DeviceIdentity:
        """Changes a device to what the identity says, if its etag is still the current one."""
        return DeviceIdentity._of_native(_wait(self._native.update(document_of(device)), timeout))

    def delete(self, id: str, etag: Optional[str] = None, *, timeout: Optional[timedelta] = None) -> None:
        """Deletes a device with its commands and modules; its events stay."""
        _wait(self._native.delete(id, etag), timeout)

    def list(self, limit: Optional[int] = None, *, timeout: Optional[timedelta] = None) -> List[DeviceIdentity]:
        """Up to `limit` devices (1 to 1000; without one as many as the hub gives), in no particular order. For more, `query`."""
        return [DeviceIdentity._of_native(text) for text in _wait(self._native.list(limit), timeout)]

    def query(
        self, sql: str, page_size: Optional[int] = None, *, timeout: Optional[timedelta] = None
    ) -> Iterator[Dict[str, Any]]:
        """The documents of the devices that a query finds; `page_size` are fetched at a time, each within `timeout`."""
        continuation: Optional[str] = None
        while True:
            documents, continuation = _wait(self._native.query(sql, page_size, continuation), timeout)
            for text in documents:
                yield json.loads(text)
            if continuation is None:
                return

    def create_module(self, module: ModuleIdentity, *, timeout: Optional[timedelta] = None) -> ModuleIdentity:
        """Creates a module of a device, with keys the hub makes unless the identity says otherwise."""
        return ModuleIdentity._of_native(_wait(self._native.create_module(document_of(module)), timeout))

    def get_module(self, device_id: str, id: str, *, timeout: Optional[timedelta] = None) -> ModuleIdentity:
        """A module of a device."""
        return ModuleIdentity._of_native(_wait(self._native.get_module(device_id, id), timeout))

    def update_module(self, module: ModuleIdentity, *, timeout: Optional[timedelta] = None) -> ModuleIdentity:
        """Changes a module, if its etag is still the current one."""
        return ModuleIdentity._of_native(_wait(self._native.update_module(document_of(module)), timeout))

    def delete_module(
        self, device_id: str, id: str, etag: Optional[str] = None, *, timeout: Optional[timedelta] = None
    ) -> None:
        """Deletes a module. With an etag, only while it is the current one."""
        _wait(self._native.delete_module(device_id, id, etag), timeout)

    def modules(self, device_id: str, *, timeout: Optional[timedelta] = None) -> List[ModuleIdentity]:
        """The modules of a device."""
        return [ModuleIdentity._of_native(text) for text in _wait(self._native.modules(device_id), timeout)]

    def purge_commands(self, id: str, *, timeout: Optional[timedelta] = None) -> int:
        """Ends all commands in the queue of a device as purged; how many."""
        return _wait(self._native.purge_commands(id), timeout)  # type: ignore[no-any-return]

    def connection_string(self, identity: Union[DeviceIdentity, ModuleIdentity]) -> Optional[str]:
        """The connection string of a device or module; see `whimbrel.Registry.connection_string`."""
        return connection_string(self._native, identity)


class ServiceClient(BaseServiceClient):
    """A back end's connection to its hub; see `whimbrel.ServiceClient`, also for the errors."""

    __slots__ = ()

    @staticmethod
    def connect(
        connection_string: str, *, timeout: Optional[timedelta] = None, **options: Unpack[ServiceOptions]
    ) -> ServiceClient:
        """Checks the options and reads the files they name. Connecting happens when it is needed."""
        return ServiceClient(_wait(open_service(connection_string, options), timeout))

    def send(
        self, device_id: str, body: Buffer, *, timeout: Optional[timedelta] = None, **fields: Unpack[CommandFields]
    ) -> Tracked:
        """Sends a command to a device; returns when the hub has stored it in the device's queue."""
        return Tracked(_wait(send_call(self._native, device_id, body, fields), timeout))

    def send_json(
        self, device_id: str, value: Any, *, timeout: Optional[timedelta] = None, **fields: Unpack[CommandFields]
    ) -> Tracked:
        """`send` with `value` as JSON in UTF-8, which `content_type` and `content_encoding` say unless they are given."""
        return self.send(device_id, dumped("service.send", value), timeout=timeout, **with_json(fields))

    def tracked(self, device_id: str, message_id: str) -> Tracked:
        """Follows a command that was sent before, also by another process, by its message id."""
        return Tracked(self._native.tracked(device_id, message_id))

    def feedback(self) -> FeedbackReader:
        """Reads the feedback the hub keeps for commands that asked for it."""
        return FeedbackReader(self._native.feedback())

    def events(self, *, timeout: Optional[timedelta] = None, **options: Unpack[EventsOptions]) -> EventReader:
        """Reads events; once it returns, events stored from then on are seen."""
        name, native = _wait(events_call(self._native, options), timeout)
        return EventReader(native, name)

    @property
    def registry(self) -> Registry:
        """Creates, changes and deletes device and module identities."""
        return Registry(self._native.registry())

    def close(self, *, timeout: Optional[timedelta] = None) -> None:
        """Closes the client: what waits ends with `Closed`, readers give up their partitions and end."""
        self._closed = True
        _wait(self._native.close(), timeout)

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        self.close()


def _or_stop(item: Optional[T]) -> T:
    if item is None:
        raise StopIteration
    return item
