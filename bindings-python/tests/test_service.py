"""The service client against a hub."""

from __future__ import annotations

import asyncio
import pathlib
from datetime import datetime, timedelta, timezone
from typing import Any, List

import pytest
from whimbrel.testing import LocalHub

import whimbrel
from whimbrel import Position


def connect(hub: LocalHub, **more: Any) -> Any:
    return whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options(), **more)


def test_commands_are_tracked_to_every_end(hub: LocalHub) -> None:
    connection_string = hub.create_device("tracked")

    async def main() -> None:
        async with connect(hub) as service:
            late = await service.send("tracked", b"x", expires_in=timedelta(milliseconds=1), message_id="late")
            assert (late.device_id, late.message_id) == ("tracked", "late") and "late" in repr(late)
            assert await late.outcome() is whimbrel.CommandOutcome.EXPIRED
            purged = await service.send("tracked", b"x")
            assert await service.registry.purge_commands("tracked") == 1
            assert await purged.outcome() is whimbrel.CommandOutcome.PURGED
            unlucky = await service.send("tracked", b"x")
            async with whimbrel.DeviceClient.open(
                connection_string, outbox_in_memory=True, **hub.device_options()
            ) as device:
                async for command in device.inbox():
                    await command.abandon()
                    if command.delivery_count is not None and command.delivery_count >= 9:
                        break
            assert await unlucky.outcome() is whimbrel.CommandOutcome.DELIVERY_COUNT_EXCEEDED
        async with connect(hub) as other:
            assert await other.tracked("tracked", "late").outcome() == "expired"
            with pytest.raises(whimbrel.NotFound):
                await other.tracked("tracked", "never-sent").outcome()
            with pytest.raises(whimbrel.NotFound) as raised:
                await other.send("nobody", b"x")
            assert isinstance(raised.value, LookupError)
            for wrong in (
                lambda: other.send("", b"x"),
                lambda: other.send("\ud800", b"x"),
                lambda: other.send("tracked", "text"),
                lambda: other.send("tracked", b"x", feedback="perhaps"),
                lambda: other.send("tracked", b"x", expires_in=timedelta(0)),
                lambda: other.send("tracked", b"x", expires_in=5),
            ):
                with pytest.raises(whimbrel.InvalidArgument):
                    await wrong()
            with pytest.raises(whimbrel.PayloadTooLarge):
                await other.send("tracked", bytes(65 << 10))
            with pytest.raises(TypeError, match="lane"):
                await other.send("tracked", b"x", lane="alert")
            with pytest.raises(whimbrel.InvalidArgument):
                other.tracked("a/b", "m")
        with pytest.raises(whimbrel.Closed):
            await other.send("tracked", b"x")
        with pytest.raises(whimbrel.Closed):
            other.feedback()

    asyncio.run(main())


def test_feedback_is_read_in_batches(hub: LocalHub) -> None:
    hub.create_device("feedback")

    async def main() -> None:
        async with connect(hub) as service, service.feedback() as reader:
            before = datetime.now(timezone.utc) - timedelta(minutes=5)
            await service.send(
                "feedback", b"x", message_id="f", feedback=whimbrel.FeedbackWanted.FULL, expires_in=timedelta(milliseconds=1)
            )
            settle: Any = None
            # Given back once, it comes again.
            for settle in ("abandon", "complete"):
                async for batch in reader:
                    if any(record.message_id == "f" for record in batch.records):
                        break
                    await batch.complete()
                record = next(record for record in batch.records if record.message_id == "f")
                assert (record.device_id, record.outcome) == ("feedback", whimbrel.CommandOutcome.EXPIRED)
                assert record.ended_at is not None and record.ended_at > before
                assert batch.enqueued_at is not None and batch.enqueued_at > before
                await getattr(batch, settle)()
                with pytest.raises(whimbrel.Conflict):
                    await batch.complete()
        assert await reader.next() is None

    asyncio.run(main())


async def take(reader: Any, device: str, count: int) -> List[whimbrel.Event]:
    """The next events of a device."""
    found: List[whimbrel.Event] = []
    while len(found) < count:
        event = await asyncio.wait_for(reader.next(), 60)
        if event.device_id == device:
            found.append(event)
    return found


async def send(hub: LocalHub, connection_string: str, *bodies: bytes) -> List[whimbrel.Outcome]:
    async with whimbrel.DeviceClient.open(connection_string, outbox_in_memory=True, **hub.device_options()) as device:
        return [await receipt.outcome() for receipt in await device.send_many(bodies)]


def test_events_from_every_position(hub: LocalHub) -> None:
    connection_string = hub.create_device("positions")

    async def main() -> None:
        outcomes = await send(hub, connection_string, b"1", b"2", b"3")
        async with connect(hub) as service:
            async with service.events(position=Position.BEGINNING, prefetch=10) as reader:
                assert len(reader.name) == 32
                events = await take(reader, "positions", 3)
                assert [event.body for event in events] == [b"1", b"2", b"3"]
            second = events[1]
            assert (second.partition, second.sequence) == (outcomes[1].partition, outcomes[1].sequence)
            assert second.module_id is None and second.source == "Telemetry"
            assert second.generation and second.auth_method and '"device"' in second.auth_method
            assert (second.message_id, second.creation_time, second.properties) == (second.message_id, None, {})
            for position in (
                Position.sequence(second.sequence),
                Position.offset(second.offset),
                Position.time(second.enqueued_at - timedelta(milliseconds=1)),
            ):
                async with service.events(position=position, partitions=[second.partition]) as reader:
                    found = await take(reader, "positions", 1)
                    assert found[0].body in (b"1", b"2", b"3") if "time" in repr(position) else found[0].body == b"2"
            async with service.events(position=Position.END, group="$Default") as reader:
                sending = asyncio.create_task(send(hub, connection_string, b"4"))
                assert [event.body for event in await take(reader, "positions", 1)] == [b"4"]
                await sending
                with pytest.raises(whimbrel.Unsupported):
                    await events[0].checkpoint()
            wrong: Any
            for wrong in (
                {"position": "middle"},
                {"position": Position.sequence(-1)},
                {"position": 5},
                {"prefetch": 0},
                {"prefetch": 2**40},
                {"partitions": 5},
                {"partitions": ["one"]},
                {"ownership": (timedelta(1),)},
                {"ownership": (timedelta(2), timedelta(1))},
                {"checkpoints": "folder"},
                {"group": "a/b"},
            ):
                with pytest.raises(whimbrel.InvalidArgument):
                    await service.events(**wrong)
            with pytest.raises(whimbrel.NotFound):
                await service.events(partitions=[99])
            with pytest.raises(TypeError, match="from_"):
                await service.events(from_="end")
        assert await reader.next() is None

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["file", "hub", "memory"])
def test_reading_goes_on_behind_a_checkpoint(hub: LocalHub, kind: str, tmp_path: pathlib.Path) -> None:
    name = f"checkpoints-{kind}"
    connection_string = hub.create_device(name)
    stores = {
        "file": whimbrel.FileCheckpoints(tmp_path / "checkpoints"),
        "hub": whimbrel.HubCheckpoints(),
        "memory": whimbrel.MemoryCheckpoints(),
    }
    # Each kind has a group of its own on the hub, which all tests share.
    options: Any = {"checkpoints": stores[kind], "group": "$Default"}
    assert "Checkpoints" in repr(stores[kind])

    async def main() -> None:
        await send(hub, connection_string, b"1", b"2", b"3")
        async with connect(hub) as service:
            async with service.events(**options, ownership=(timedelta(seconds=1), timedelta(seconds=5))) as reader:
                events = await take(reader, name, 2)
                await events[-1].checkpoint()
            async with service.events(**options) as reader:
                assert [event.body for event in await take(reader, name, 1)] == [b"3"]
            with pytest.raises(whimbrel.Conflict):
                await events[0].checkpoint()

    asyncio.run(main())


def test_identities_are_created_read_changed_and_deleted(hub: LocalHub) -> None:
    async def main() -> None:
        async with connect(hub) as service:
            registry = service.registry
            device = await registry.create("registry-1")
            assert (device.id, device.status, device.connected, device.pending_commands) == ("registry-1", "enabled", False, 0)
            assert device.etag and device.generation and device.authentication["type"] == "sas"
            assert registry.connection_string(device).startswith("HostName=")
            assert "primaryKey" not in repr(device)
            with pytest.raises(whimbrel.Conflict):
                await registry.create("registry-1")
            device.status, device.status_reason = "disabled", "for a test"
            changed = await registry.update(device)
            assert (changed.status, changed.status_reason) == ("disabled", "for a test") and changed.etag != device.etag
            with pytest.raises(whimbrel.Conflict):
                await registry.update(device)
            assert await registry.get("registry-1") == changed
            certified = whimbrel.DeviceIdentity(
                "registry-2", authentication={"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "A" * 40}}
            )
            certified = await registry.create(certified)
            assert registry.connection_string(certified).endswith("x509=true")
            assert {"registry-1", "registry-2"} <= {device.id for device in await registry.list(limit=1000)}
            assert len(await registry.list(limit=1)) == 1
            found = [document["deviceId"] async for document in registry.query("SELECT * FROM devices", page_size=1)]
            assert {"registry-1", "registry-2"} <= set(found) and len(found) == len(set(found))
            with pytest.raises(whimbrel.InvalidArgument):
                async for _ in registry.query("DROP TABLE devices"):
                    pass

            module = await registry.create_module(whimbrel.ModuleIdentity("registry-1", "m", managed_by="me"))
            assert (module.device_id, module.id, module.managed_by) == ("registry-1", "m", "me")
            assert "ModuleId=m" in registry.connection_string(module) and "m" in repr(module)
            module.managed_by = "you"
            module = await registry.update_module(module)
            assert await registry.get_module("registry-1", "m") == module
            assert [module.managed_by for module in await registry.modules("registry-1")] == ["you"]
            with pytest.raises(whimbrel.Conflict):
                await registry.delete_module("registry-1", "m", "an-old-etag")
            await registry.delete_module("registry-1", "m", module.etag)
            with pytest.raises(whimbrel.NotFound):
                await registry.get_module("registry-1", "m")
            with pytest.raises(whimbrel.Conflict):
                await registry.delete("registry-1", etag="an-old-etag")
            await registry.delete("registry-1", etag=changed.etag)
            await registry.delete("registry-2")
            for missing in (lambda: registry.get("registry-1"), lambda: registry.purge_commands("registry-1")):
                with pytest.raises(whimbrel.NotFound):
                    await missing()
            document: Any
            for document in ("\ud800", whimbrel.DeviceIdentity(5), whimbrel.DeviceIdentity("x", status="perhaps")):  # type: ignore[arg-type]
                with pytest.raises(whimbrel.InvalidArgument):
                    await registry.create(document)

    asyncio.run(main())


def test_options_of_the_client(hub: LocalHub) -> None:
    given: Any = {
        "events_connection_string": None,
        "websocket": False,
        "proxy": None,
        "ca_file": None,
        "ca_pem": None,
        "allow_unencrypted": True,
        "connect_timeout": timedelta(seconds=5),
        "send_timeout": timedelta(milliseconds=50),
        "backoff": (timedelta(milliseconds=1), timedelta(milliseconds=20)),
        "token_lifetime": timedelta(hours=1),
        "recent_outcomes": 10,
        "server": "amqp://127.0.0.1:9",
        "http_server": "http://127.0.0.1:9",
    }
    assert set(given) == set(whimbrel.ServiceOptions.__annotations__)

    async def main() -> None:
        async with whimbrel.ServiceClient.connect(hub.service_connection_string, **given) as service:
            with pytest.raises((whimbrel.DeliveryTimeout, whimbrel.Unreachable)) as raised:
                await service.send("d", b"x")
            assert isinstance(raised.value, OSError)
            with pytest.raises(whimbrel.Unreachable):
                await service.registry.get("d")
        with pytest.raises(TypeError, match="servre"):
            await whimbrel.ServiceClient.connect(hub.service_connection_string, servre="x")  # type: ignore[call-arg]
        for wrong in ({"send_timeout": 5}, {"backoff": (timedelta(1), 2)}, {"recent_outcomes": -1}):
            with pytest.raises(whimbrel.InvalidArgument):
                await whimbrel.ServiceClient.connect(hub.service_connection_string, **wrong)  # type: ignore[arg-type]
        with pytest.raises(whimbrel.Unauthorized) as refused:
            wrong_key = hub.service_connection_string.split("SharedAccessKey=")[0] + "SharedAccessKey=c2VjcmV0"
            async with whimbrel.ServiceClient.connect(wrong_key, **hub.service_options()) as service:
                await service.registry.get("d")
        assert isinstance(refused.value, PermissionError)

    asyncio.run(main())
