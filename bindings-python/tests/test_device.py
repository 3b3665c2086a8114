"""The device client without a hub, and sending to one."""

from __future__ import annotations

import array
import asyncio
import types
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Dict, Iterator, List

import pytest
from conftest import CONNECTION_STRING
from whimbrel.testing import LocalHub

import whimbrel
import whimbrel.sync
from whimbrel import _native

Options = Dict[str, Any]


def open_device(offline: Options, **more: Any) -> Any:
    return whimbrel.DeviceClient.open(CONNECTION_STRING, **{**offline, **more})


def test_a_message_is_found_by_its_id_after_a_restart(offline: Options) -> None:
    async def first() -> List[str]:
        async with open_device(offline) as device:
            made = await device.send(b"21.5", properties={"room": "attic"})
            chosen = await device.send(b"22", message_id="m-1", lane=whimbrel.Lane.ALERT)
            assert chosen.message_id == "m-1"
            assert made.state() == whimbrel.ReceiptState("queued")
            account = device.account()
            assert account.balances() and (account.accepted, account.queued) == (2, 2)
            assert device.counters().queued_alerts == 1
            return [made.message_id, chosen.message_id]

    async def second(ids: List[str]) -> None:
        device = await open_device(offline)
        for message_id in ids:
            receipt = await device.receipt(message_id)
            assert receipt is not None and receipt.message_id == message_id
            assert receipt.state().state == "queued"
        assert await device.receipt("nobody") is None
        await device.close()
        with pytest.raises(whimbrel.Closed):
            await receipt.outcome()

    asyncio.run(second(asyncio.run(first())))


def test_everything_a_message_says_arrives(hub: LocalHub) -> None:
    at = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=timezone.utc)

    async def main() -> None:
        connection_string = hub.create_device("says")
        async with whimbrel.DeviceClient.open(
            connection_string, outbox_in_memory=True, **hub.device_options()
        ) as device:
            receipt = await device.send_json(
                {"t": 21.5, "ü": "\0"},
                properties=types.MappingProxyType({"room": "attic", "umlaut": "ü"}),
                message_id="id",
                correlation_id="other",
                creation_time=at,
                expires_in=timedelta(hours=1),
            )
            outcome = await receipt.outcome()
            assert outcome.kind == "delivered" and outcome.kind is whimbrel.OutcomeKind.DELIVERED
            assert receipt.state() == whimbrel.ReceiptState("settled", outcome)
            assert await device.flush(timedelta(0)) == 0
        service = whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
        async with service as service, service.events(position="beginning") as events:
            async for event in events:
                if event.device_id == "says":
                    break
            assert event.body == '{"t":21.5,"ü":"\\u0000"}'.encode()
            assert event.properties == {"room": "attic", "umlaut": "ü"}
            assert (event.message_id, event.correlation_id, event.creation_time) == ("id", "other", at)
            assert (event.content_type, event.content_encoding) == ("application/json", "utf-8")
            assert (event.partition, event.sequence) == (outcome.partition, outcome.sequence)

    asyncio.run(main())


BODIES: Dict[str, Any] = {
    "empty": b"",
    "bytes": b"\0\xff",
    "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abcdef")[2:4],
    "array": array.array("d", [1.5, -2.5]),
    "shape": memoryview(bytes(24)).cast("B", (2, 3, 4)),
    "large": bytes(200 << 10),
}


@pytest.mark.parametrize("name", BODIES)
def test_any_buffer_is_a_body(name: str) -> None:
    body = BODIES[name]
    message = whimbrel.Message(body)
    assert message.body == bytes(memoryview(body).cast("B")) if name != "empty" else message.body == b""
    if isinstance(body, bytearray):
        body.append(1)  # is not locked, and the message has its own copy
        assert message.body == b"abc"


WRONG: Dict[str, Callable[[Any], Any]] = {
    "a body of text": lambda send: send("21.5"),
    "a body that is no buffer": lambda send: send(5),
    "no body": lambda send: send(None),
    "a view with gaps": lambda send: send(memoryview(b"abcdef")[::2]),
    "an unknown lane": lambda send: send(b"", lane="fast"),
    "a lane that is no text": lambda send: send(b"", lane=1),
    "an unknown durability": lambda send: send(b"", durability="perhaps"),
    "half a surrogate pair as id": lambda send: send(b"", message_id="\ud800"),
    "half a surrogate pair as value": lambda send: send(b"", properties={"a": "\udc80"}),
    "half a surrogate pair as name": lambda send: send(b"", properties={"\udc80": "a"}),
    "properties that are no mapping": lambda send: send(b"", properties=5),
    "a property that is no text": lambda send: send(b"", properties={"a": 1}),
    "a negative time": lambda send: send(b"", expires_in=timedelta(microseconds=-1)),
    "no time": lambda send: send(b"", expires_in=timedelta(0)),
    "a time that is a number": lambda send: send(b"", expires_in=5),
    "a date without a zone": lambda send: send(b"", creation_time=datetime(2026, 1, 1)),
    "a date that is a number": lambda send: send(b"", creation_time=5),
    "an id with NUL": lambda send: send(b"", message_id="a\0b"),
    "a type with NUL": lambda send: send(b"", content_type="a\0b"),
    "a property with NUL": lambda send: send(b"", properties={"a": "\0"}),
    "an id that is too long": lambda send: send(b"", message_id="x" * 129),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_sent_is_said_at_once(offline: Options, name: str) -> None:
    async def main() -> None:
        async with open_device(offline) as device:
            with pytest.raises(whimbrel.InvalidArgument) as raised:
                await WRONG[name](device.send)
            assert isinstance(raised.value, ValueError)
            assert raised.value.code == 101
            assert device.account().accepted == 0

    asyncio.run(main())


def test_limits_of_size_and_time(offline: Options) -> None:
    async def main() -> None:
        async with open_device(offline) as device:
            with pytest.raises(whimbrel.PayloadTooLarge):
                await device.send(bytes(300 << 10))
            with pytest.raises(whimbrel.PayloadTooLarge):
                await device.send(memoryview(bytes(300 << 10)))
            # Microseconds are rounded up, and the longest timedelta there is does no harm.
            await device.send(b"", expires_in=timedelta(microseconds=1))
            await device.send(b"", expires_in=timedelta.max)
            await device.send(b"\0")
            await device.send(b"", creation_time=datetime.max.replace(tzinfo=timezone.utc))
            await device.send(b"", creation_time=datetime.min.replace(tzinfo=timezone.utc))
            assert await device.flush(timedelta(0)) >= 4
            for deadline in (timedelta(-1), 1):
                with pytest.raises(whimbrel.InvalidArgument):
                    await device.flush(deadline)

    asyncio.run(main())


def test_json_is_refused_when_it_is_none() -> None:
    circle: List[Any] = []
    circle.append(circle)
    for value in (float("nan"), object(), {1, 2}, "\ud800", circle):
        with pytest.raises(whimbrel.InvalidArgument):
            whimbrel.Message.json(value)
    message = whimbrel.Message.json([2**53 + 1, "ü"], content_type="application/x")
    assert message.body == "[9007199254740993,\"ü\"]".encode()
    assert message.said()[1]["content_type"] == "application/x"


def test_many_are_sent_at_once_all_or_none(offline: Options) -> None:
    async def main() -> None:
        async with open_device(offline) as device:
            receipts = await device.send_many(whimbrel.Message(b"%d" % n, message_id=f"m{n}") for n in range(1000))
            assert len(receipts) == 1000
            assert [receipt.message_id for receipt in receipts[:3]] == ["m0", "m1", "m2"]
            assert receipts[-1].message_id == "m999" and receipts[5:3:-1][0].message_id == "m5"
            assert sum(1 for _ in receipts) == 1000
            with pytest.raises(IndexError):
                receipts[1000]
            for wrong in (b"x", "text"), (whimbrel.Message(bytes(255 << 10)), bytes(257 << 10)):
                with pytest.raises((whimbrel.InvalidArgument, whimbrel.PayloadTooLarge)) as raised:
                    await device.send_many(wrong)
                assert raised.value.details["index"] == "1"
            assert len(await device.send_many([])) == 0
            assert device.account().accepted == 1000

            def fails() -> Iterator[bytes]:
                yield b"x"
                raise KeyError("from the iterator")

            with pytest.raises(KeyError):
                await device.send_many(fails())
            with pytest.raises(TypeError):
                await device.send_many(5)
            assert device.account().accepted == 1000

    asyncio.run(main())


def test_every_field_of_a_message_can_be_said() -> None:
    fields = [name[:-3] if name.endswith("_ms") else name for name in _native.message_fields()]
    assert fields == list(whimbrel.MessageFields.__annotations__)
    for function in (whimbrel.Message.__new__, whimbrel.DeviceClient.send, whimbrel.sync.DeviceClient.send):
        assert [name for name in function.__kwdefaults__ if name != "timeout"] == fields


def as_options(names: List[str]) -> List[str]:
    """The names of native options as the shell has them."""
    found = []
    for name in names:
        name = name[:-3] if name.endswith("_ms") else name
        name = {"from": "position"}.get(name, name)
        for pair, parts in {"backoff": ("backoff_min", "backoff_max"), "ownership": ("ownership_renew", "ownership_lasts")}.items():
            name = pair if name in parts else name
        if name not in found:
            found.append(name)
    return sorted(found)


def test_every_option_can_be_said() -> None:
    assert as_options(_native.device_options()) == sorted(whimbrel.DeviceOptions.__annotations__)
    assert as_options(_native.service_options()) == sorted(whimbrel.ServiceOptions.__annotations__)
    assert as_options(_native.events_options() + ["checkpoints"]) == sorted(whimbrel.EventsOptions.__annotations__)
    command = set(_native.send_options() + _native.message_fields())
    unsaid = {"lane", "durability", "creation_time", "message_schema", "output_name", "interface_id", "component"}
    assert set(as_options(list(command))) - unsaid == set(whimbrel.CommandFields.__annotations__)


PEM = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
# A value for each option, and what is said when it is of no use together with the others.
GIVEN: Dict[str, Any] = {
    "outbox": None,
    "outbox_in_memory": False,
    "overflow": "drop-oldest",
    "durability": whimbrel.Durability.INTERVAL,
    "outbox_max_bytes": 2**53 + 1,
    "outbox_max_messages": 1000,
    "outbox_max_age": timedelta(days=1),
    "sync_interval": timedelta(milliseconds=100),
    "kept_outcomes": 10,
    "server": "mqtt://127.0.0.1:9",
    "websocket": False,
    "proxy": None,
    "allow_unencrypted": True,
    "protocol": whimbrel.Protocol.MQTT5,
    "keep_alive": timedelta(seconds=30),
    "connect_timeout": timedelta(seconds=5),
    "poll_interval": timedelta(minutes=1),
    "window": 7,
    "inbox_window": 8,
    "backoff": (timedelta(milliseconds=1), timedelta(seconds=1)),
    "close_deadline": timedelta(0),
    "token_lifetime": timedelta(hours=2),
}


def test_options_are_taken(offline: Options) -> None:
    async def main() -> None:
        given = {**GIVEN, "outbox": offline["outbox"]}
        files = {"ca_file", "ca_pem", "client_certificate", "client_key", "client_certificate_pem", "client_key_pem"}
        assert set(given) | files == set(whimbrel.DeviceOptions.__annotations__)
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **given) as device:
            assert (await device.send(b"x")).state().state == "queued"

    asyncio.run(main())


WRONG_OPTIONS: Dict[str, Any] = {
    "overflow": "explode",
    "protocol": "pigeon",
    "window": 70_000,
    "outbox_max_messages": -1,
    "outbox_max_bytes": 2**64,
    "kept_outcomes": 1.5,
    "keep_alive": 5,
    "poll_interval": timedelta(seconds=-1),
    "backoff": timedelta(1),
    "outbox": b"bytes",
    "ca_file": "/no/such/file",
    "ca_pem": PEM,
    "client_certificate": "/only/one",
    "client_certificate_pem": PEM,
    "client_key": "/only/one",
    "client_key_pem": PEM,
    "outbox_in_memory": True,
    "server": "\ud800",
    "proxy": object(),
    "websocket": "yes",
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_wrong_options_are_named(offline: Options, name: str) -> None:
    async def main() -> None:
        with pytest.raises(whimbrel.InvalidArgument) as raised:
            await open_device({**offline, "server": "mqtts://127.0.0.1:9", name: WRONG_OPTIONS[name]})
        assert raised.value.operation.startswith("device.")

    asyncio.run(main())


def test_an_unknown_option_is_a_type_error(offline: Options) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="outbocks"):
            await open_device(offline, outbocks="x")
        for wrong in ("nonsense", "HostName=a;DeviceId=b", "\ud800", 5):
            with pytest.raises(whimbrel.InvalidArgument):
                await whimbrel.DeviceClient.open(wrong, **offline)  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_folder_has_one_client_at_a_time(offline: Options) -> None:
    async def main() -> None:
        async with open_device(offline):
            with pytest.raises(whimbrel.InUse) as raised:
                await open_device(offline)
            assert raised.value.retry == "later"
        async with open_device(offline):
            pass

    asyncio.run(main())


def test_opening_is_a_coroutine_too(offline: Options) -> None:
    async def main() -> None:
        device = await asyncio.create_task(open_device(offline))
        async with device as same:
            assert same is device
        device = await asyncio.wait_for(open_device(offline), 30)
        await device.close()
        await device.close()
        opening = open_device(offline)
        opening.close()  # never awaited, and no warning

    asyncio.run(main())


def test_a_full_outbox_refuses_or_drops(offline: Options) -> None:
    async def main() -> None:
        async with open_device(offline, outbox_max_messages=2) as device:
            await device.send_many([b"1", b"2"])
            with pytest.raises(whimbrel.OutboxFull) as raised:
                await device.send(b"3")
            assert (raised.value.kind, raised.value.retry) == ("OUTBOX_FULL", "later")
            with pytest.raises(whimbrel.OutboxFull):
                await device.send_many([b"3"])
            assert device.counters().refused == 2
        async with open_device(offline, outbox_max_messages=2, overflow=whimbrel.Overflow.DROP_NEWEST) as device:
            receipt = await device.send(b"3")
            outcome = await receipt.outcome()
            assert outcome == whimbrel.Outcome(whimbrel.OutcomeKind.DROPPED, reason="no-room")
            assert device.counters().dropped_by_reason == {"no-room": 1}

    asyncio.run(main())


def test_a_message_expires(offline: Options) -> None:
    async def main() -> None:
        async with open_device(offline) as device:
            receipt = await device.send(b"x", expires_in=timedelta(milliseconds=1))
            assert await receipt.outcome() == whimbrel.Outcome(whimbrel.OutcomeKind.EXPIRED)

    asyncio.run(main())


def test_the_connection_is_told(hub: LocalHub) -> None:
    connection_string = hub.create_device("states")

    async def main() -> None:
        device = await whimbrel.DeviceClient.open(connection_string, outbox_in_memory=True, **hub.device_options())
        seen = []
        async for state in device.connection_changes():
            seen.append(state.state)
            if state.state == "connected":
                assert device.connection == whimbrel.ConnectionState("connected")
                closing = asyncio.create_task(device.close())
        await closing
        assert seen[-1] == "closed" and device.connection.state == "closed"

    asyncio.run(main())


def test_nothing_secret_is_shown(offline: Options) -> None:
    async def main() -> None:
        async with open_device(offline) as device:
            receipt = await device.send(b"body-of-it", message_id="m")
            message = whimbrel.Message(b"body-of-it", properties={"password": "hidden-value"})
            for shown in (device, receipt, message, device.inbox(), device.connection, device.account()):
                text = repr(shown) + str(shown)
                for secret in ("c2VjcmV0", "body-of-it", "hidden-value"):
                    assert secret not in text
        error = whimbrel.InvalidArgument
        with pytest.raises(error) as raised:
            await whimbrel.DeviceClient.open(CONNECTION_STRING + ";x509=perhaps", **offline)
        assert "c2VjcmV0" not in str(raised.value) + repr(raised.value)

    asyncio.run(main())


def test_messages_compare(offline: Options) -> None:
    message = whimbrel.Message(b"x", lane="alert", expires_in=timedelta(seconds=1), properties={"a": "b"})
    same = whimbrel.Message(bytearray(b"x"), lane=whimbrel.Lane.ALERT, expires_in=timedelta(seconds=1), properties={"a": "b"})
    assert message == same and hash(message) == hash(same) and message != whimbrel.Message(b"x")
    assert message.lane is whimbrel.Lane.ALERT and message.lane == "alert" and f"{message.lane}" == "alert"
    assert (message.expires_in, message.properties, message.message_id) == (timedelta(seconds=1), {"a": "b"}, None)
