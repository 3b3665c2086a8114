"""Device and back end clients for IoT hubs, with a durable outbox.

For asyncio; the same names in `whimbrel.sync` block instead. Start with `DeviceClient`.
"""

from __future__ import annotations

import os as _os

from . import _native
from .device import Command, ConnectionChanges, DeviceClient, DeviceOptions, Inbox, Receipt, Receipts
from .errors import (
    Cancelled,
    Closed,
    Conflict,
    DeliveryTimeout,
    DiskFull,
    Expired,
    InternalError,
    InUse,
    InvalidArgument,
    JournalCorrupt,
    JournalIoError,
    JournalVersion,
    LockLost,
    NotFound,
    OutboxFull,
    PayloadTooLarge,
    ProtocolError,
    QueueFull,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
    Unsupported,
    WhimbrelError,
)
from .events import (
    Event,
    EventReader,
    EventsOptions,
    FileCheckpoints,
    HubCheckpoints,
    MemoryCheckpoints,
    Position,
)
from .identity import DeviceIdentity, ModuleIdentity
from .message import CommandFields, Durability, FeedbackWanted, Lane, Message, MessageFields, Overflow, Protocol
from .registry import Registry
from .service import (
    CommandOutcome,
    FeedbackBatch,
    FeedbackReader,
    FeedbackRecord,
    ServiceClient,
    ServiceOptions,
    Tracked,
)
from .values import Account, ConnectionState, Counters, Outcome, OutcomeKind, ReceiptState

__all__ = [
    "Account",
    "Cancelled",
    "Closed",
    "Command",
    "CommandFields",
    "CommandOutcome",
    "Conflict",
    "ConnectionChanges",
    "ConnectionState",
    "Counters",
    "DeliveryTimeout",
    "DeviceClient",
    "DeviceIdentity",
    "DeviceOptions",
    "DiskFull",
    "Durability",
    "Event",
    "EventReader",
    "EventsOptions",
    "Expired",
    "FeedbackBatch",
    "FeedbackReader",
    "FeedbackRecord",
    "FeedbackWanted",
    "FileCheckpoints",
    "HubCheckpoints",
    "InUse",
    "Inbox",
    "InternalError",
    "InvalidArgument",
    "JournalCorrupt",
    "JournalIoError",
    "JournalVersion",
    "Lane",
    "LockLost",
    "MemoryCheckpoints",
    "Message",
    "MessageFields",
    "ModuleIdentity",
    "NotFound",
    "OutboxFull",
    "Outcome",
    "OutcomeKind",
    "Overflow",
    "PayloadTooLarge",
    "Position",
    "Protocol",
    "ProtocolError",
    "QueueFull",
    "Receipt",
    "ReceiptState",
    "Receipts",
    "Registry",
    "Rejected",
    "ServiceClient",
    "ServiceOptions",
    "Throttled",
    "Tracked",
    "Unauthorized",
    "Unreachable",
    "Unsupported",
    "WhimbrelError",
]

if hasattr(_os, "register_at_fork"):
    # What was opened before a fork fails in the child, clearly, instead of waiting for threads that are not there.
    _os.register_at_fork(after_in_child=_native.after_fork)
