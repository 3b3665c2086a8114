"""Opens the device client, the outbox always on the disk."""

from datetime import timedelta

CONNECTION_STRING = "HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
LONG = timedelta(minutes=2)


def options(given):
    if not given.outbox:
        raise SystemExit("--outbox is missing: the folder for the outbox")
    return {"outbox": given.outbox, "server": f"mqtt://{given.host}:{given.port}"}


async def connected(device):
    async for state in device.connection_changes():
        if state.state == "connected":
            return


def settled(device, messages):
    """Every message has been delivered, or the run does not count."""
    account = device.account()
    if account.delivered != messages:
        raise SystemExit(f"not everything was delivered: {account}")
