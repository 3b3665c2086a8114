"""The Python actor: does with `whimbrel` what the driver says; with `--sync` with `whimbrel.sync`. See ../README.md."""

import asyncio
import base64
import dataclasses
import enum
import importlib
import inspect
import json
import sys
import threading
from datetime import datetime, timedelta, timezone

import whimbrel

SYNC = "--sync" in sys.argv
face = importlib.import_module("whimbrel.sync") if SYNC else whimbrel

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MILLISECOND = timedelta(milliseconds=1)
EXACT = 2**53 - 1
RECEIVED = (
    "body", "properties", "message_id", "correlation_id", "user_id", "content_type", "content_encoding", "creation_time",
    "sequence", "enqueued_at",
)  # fmt: skip
OF_EVENTS = ("device_id", "module_id", "generation", "auth_method", "source", "partition", "offset")
objects = {}


async def done(value):
    """What a call gives, whether it has to be awaited or not."""
    return await value if inspect.isawaitable(value) else value


async def step(stream):
    """The next item of an iterator, or None."""
    try:
        return await stream.__anext__() if hasattr(stream, "__anext__") else next(stream)
    except (StopAsyncIteration, StopIteration):
        return None


def revived(value):
    if isinstance(value, list):
        return [revived(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$int" in value:
        return int(value["$int"])
    if "$utf16" in value:
        return "".join(map(chr, value["$utf16"]))
    return {name: revived(item) for name, item in value.items()}


def plain(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return (value - EPOCH) // MILLISECOND
    if isinstance(value, timedelta):
        return value // MILLISECOND
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return {"$int": str(value)}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(plain(name)): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def keywords(args, *without):
    """Names and values as this language has them."""
    told = {}
    for name, value in args.items():
        if name in without:
            continue
        if name.endswith("_ms"):
            name = name[:-3]
            if isinstance(value, (int, float)):
                time = timedelta(milliseconds=value)
                value = EPOCH + time if name == "creation_time" else time
        told[name] = value
    for pair, first, second in (("backoff", "min", "max"), ("ownership", "renew", "lasts")):
        if f"{pair}_{first}" in told:
            told[pair] = (told.pop(f"{pair}_{first}"), told.pop(f"{pair}_{second}"))
    return told


def body_of(args):
    return args["text"] if "text" in args else base64.b64decode(args["body"])


def message(args):
    return whimbrel.Message(body_of(args), **keywords(args, "body", "text"))


def outcome(ended):
    return {"outcome": plain(ended.kind), "partition": ended.partition, "sequence": plain(ended.sequence), "reason": ended.reason}


def received(thing, *also):
    answer = {name: plain(getattr(thing, name)) for name in (*RECEIVED, *also)}
    answer["creation_time_ms"] = answer.pop("creation_time")
    answer["enqueued_at_ms"] = answer.pop("enqueued_at")
    return answer


def position(given):
    if isinstance(given, str):
        return given
    if "sequence" in given:
        return whimbrel.Position.sequence(given["sequence"])
    if "offset" in given:
        return whimbrel.Position.offset(given["offset"])
    return whimbrel.Position.time(EPOCH + timedelta(milliseconds=given["time_ms"]))


async def perform(call, on, keep, args):
    one = objects.get(on)
    kind, _, name = call.partition(".")

    def kept(thing, **answer):
        objects[keep] = thing
        return answer

    if call == "hello":
        return {"language": "Python"}
    if call == "device.open":
        return kept(await done(face.DeviceClient.open(args["connection_string"], **keywords(args["options"]))))
    if call == "device.send":
        receipt = await done(one.send(body_of(args), **keywords(args, "body", "text")))
        return kept(receipt, message_id=receipt.message_id)
    if call == "device.send_json":
        receipt = await done(one.send_json(args["value"], **keywords(args, "value")))
        return kept(receipt, message_id=receipt.message_id)
    if call == "device.send_many":
        receipts = await done(one.send_many([message(each) for each in args["messages"]]))
        objects.update((f"{keep}.{at}", receipt) for at, receipt in enumerate(receipts))
        return {"message_ids": [receipt.message_id for receipt in receipts]}
    if call == "device.receipt":
        receipt = await done(one.receipt(args["message_id"]))
        return {"found": False} if receipt is None else kept(receipt, found=True)
    if call == "device.inbox":
        return kept(one.inbox())
    if call in ("device.account", "device.counters"):
        return plain(await done(getattr(one, name)()))
    if call == "device.connection":
        return plain(one.connection)
    if call == "device.states":
        return kept(one.connection_changes())
    if call == "states.next":
        state = await step(one)
        return {"end": True} if state is None else plain(state)
    if call == "device.flush":
        return {"left": await done(one.flush(timedelta(milliseconds=args["deadline_ms"])))}
    if call == "receipt.state":
        state = one.state()
        return {"state": plain(state.state), **(outcome(state.outcome) if state.outcome else {})}
    if call == "receipt.outcome":
        return outcome(await done(one.outcome()))
    if call == "service.connect":
        return kept(await done(face.ServiceClient.connect(args["connection_string"], **keywords(args["options"]))))
    if call == "service.send":
        tracked = await done(one.send(args["device"], body_of(args), **keywords(args, "device", "body", "text")))
        return kept(tracked, message_id=tracked.message_id)
    if call == "service.tracked":
        return kept(one.tracked(args["device"], args["message_id"]))
    if call == "tracked.outcome":
        return {"outcome": plain(await done(one.outcome()))}
    if call == "service.feedback":
        return kept(one.feedback())
    if call == "checkpoints.file":
        return kept(whimbrel.FileCheckpoints(args["folder"]))
    if call == "checkpoints.hub":
        return kept(whimbrel.HubCheckpoints())
    if call == "checkpoints.memory":
        return kept(whimbrel.MemoryCheckpoints())
    if call == "service.events":
        options = keywords(args)
        if "position" in options:
            options["position"] = position(options["position"])
        if "checkpoints" in options:
            options["checkpoints"] = objects[options["checkpoints"]]
        reader = await done(one.events(**options))
        return kept(reader, name=reader.name)
    if name == "next":
        item = await done(one.next())
        if item is None:
            return {"end": True}
        if kind == "feedback":
            return kept(item, records=[plain(record) for record in item.records])
        return kept(item, **received(item, *(("delivery_count",) if kind == "inbox" else OF_EVENTS)))
    if kind == "registry":
        return await registry(one.registry, name, args)
    if call == "panic":
        panics = whimbrel._native.panics(True)
        return panics.wait(None) if SYNC else await whimbrel._loop.run(panics)
    if name in ("complete", "abandon", "reject", "checkpoint", "close"):
        await done(getattr(one, name)())
        return {}
    raise LookupError(f"there is no call {call}")


async def registry(of, name, args):
    module = name.endswith("module")
    identity_class = whimbrel.ModuleIdentity if module else whimbrel.DeviceIdentity
    if name in ("create", "update", "create_module", "update_module"):
        identity = identity_class.from_document(args["identity"])
        return {"identity": (await done(getattr(of, name)(identity))).document}
    if name == "connection_string":
        return {"connection_string": of.connection_string(identity_class.from_document(args["identity"]))}
    if name == "list":
        return {"identities": [device.document for device in await done(of.list(limit=args["limit"]))]}
    if name == "modules":
        return {"identities": [module.document for module in await done(of.modules(args["device"]))]}
    if name == "query":
        found = of.query(args["query"], page_size=args["page_size"])
        return {"items": [item async for item in found] if hasattr(found, "__aiter__") else list(found)}
    if name == "purge_commands":
        return {"count": await done(of.purge_commands(args["device"]))}
    names = [args["device"], args["module"]] if module else [args["device"]]
    etag = {"etag": args["etag"]} if "etag" in args else {}
    found = await done(getattr(of, name)(*names, **etag))
    return {} if found is None else {"identity": found.document}


def failure(error):
    if isinstance(error, whimbrel.WhimbrelError):
        names = ("kind", "code", "retry", "operation", "message", "details")
        return {name: plain(getattr(error, name)) for name in names}
    return {"kind": type(error).__name__, "message": str(error)}


def say(answer):
    line = json.dumps(answer) + "\n"
    with output:
        sys.stdout.write(line)
        sys.stdout.flush()


output = threading.Lock()


def parts(request):
    return request["call"], request.get("on"), request.get("as"), revived(request.get("args") or {})


async def main():
    loop = asyncio.get_running_loop()
    tasks = {}
    lines = asyncio.Queue()

    def read():
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()

    def ended(number, task):
        del tasks[number]
        if task.cancelled():
            say({"id": number, "cancelled": True})
        elif task.exception():
            say({"id": number, "error": failure(task.exception())})
        else:
            say({"id": number, "ok": task.result()})

    while (request := await lines.get()) is not None:
        number = request["id"]
        if request["call"] == "cancel":
            if task := tasks.get(request["args"]["of"]):
                task.cancel()
            say({"id": number, "ok": {}})
            continue
        task = tasks[number] = loop.create_task(perform(*parts(request)))
        task.add_done_callback(lambda task, number=number: ended(number, task))


def blocking(request):
    try:
        # Nothing in it waits for a loop, so it is over with its first step.
        perform(*parts(request)).send(None)
    except StopIteration as end:
        say({"id": request["id"], "ok": end.value})
    except BaseException as error:
        say({"id": request["id"], "error": failure(error)})


if SYNC:
    for line in sys.stdin:
        threading.Thread(target=blocking, args=(json.loads(line),), daemon=True).start()
else:
    asyncio.run(main())
