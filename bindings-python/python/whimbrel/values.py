"""Values the clients give: frozen, comparable, printable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Dict, Mapping, Optional, Tuple

from .message import _Word

__all__ = ["Account", "ConnectionState", "Counters", "Outcome", "OutcomeKind", "ReceiptState"]


class OutcomeKind(_Word):
    """How a message ended."""

    DELIVERED = "delivered"
    """Durable at the hub."""
    EXPIRED = "expired"
    """Its time to live ended first."""
    DROPPED = "dropped"
    """Given up by this side, for the reason given."""
    REJECTED = "rejected"
    """Refused by the hub for good, for the reason given."""


@dataclass(frozen=True)
class Outcome:
    """How a message ended."""

    kind: OutcomeKind
    """What happened."""
    partition: Optional[int] = None
    """Of a delivered message: its partition in the event log, where the hub tells it."""
    sequence: Optional[int] = None
    """Of a delivered message: its number in the partition, where the hub tells it."""
    reason: Optional[str] = None
    """Of a dropped message: ``made-room``, ``no-room`` or ``damaged``. Of a rejected one: what the hub said."""

    @classmethod
    def _of_native(cls, parts: Tuple[str, Optional[int], Optional[int], Optional[str]]) -> Outcome:
        kind, partition, sequence, reason = parts
        return cls(OutcomeKind(kind), partition, sequence, reason)


@dataclass(frozen=True)
class ReceiptState:
    """Where a message is."""

    state: str
    """``queued``: in the outbox. ``sent``: on its way, not acknowledged. ``settled``: ended, see `outcome`. ``unknown``: ended
    so long ago that its outcome is no longer kept, or the client is gone."""
    outcome: Optional[Outcome] = None
    """How it ended, if it has."""

    @classmethod
    def _of_native(cls, parts: Tuple[str, Any]) -> ReceiptState:
        state, outcome = parts
        return cls(state, None if outcome is None else Outcome._of_native(outcome))


@dataclass(frozen=True)
class ConnectionState:
    """What the link to the hub is doing."""

    state: str
    """``connected``, ``connecting``, ``disconnected``, ``unauthorized``, ``suspended`` or ``closed``."""
    reason: Optional[str] = None
    """Why it is disconnected or unauthorized, where that is known."""

    @classmethod
    def _of_native(cls, document: Mapping[str, Any]) -> ConnectionState:
        return cls(document["state"], document["reason"])


@dataclass(frozen=True)
class Account:
    """The account of an outbox, over the whole life of its folder."""

    accepted: int
    """Messages taken in."""
    delivered: int
    """Durable at the hub."""
    expired: int
    """Ended by their time to live."""
    dropped: int
    """Given up, for any reason."""
    rejected: int
    """Refused by the hub."""
    queued: int
    """Still here."""

    def balances(self) -> bool:
        """Whether every accepted message is either settled or queued. Anything else is a defect."""
        return self.accepted == self.delivered + self.expired + self.dropped + self.rejected + self.queued

    @classmethod
    def _of_native(cls, document: Mapping[str, Any]) -> Account:
        return cls(**document)


@dataclass(frozen=True)
class Counters:
    """Figures of an outbox."""

    account: Account
    """The account."""
    queued_alerts: int
    """Messages in the alert lane, part of ``account.queued``."""
    queued_bytes: int
    """Bytes waiting on the disk."""
    oldest_age: Optional[timedelta]
    """Age of the oldest waiting message."""
    sent: int
    """Publishes handed to the network since opening, resends included."""
    dropped_by_reason: Dict[str, int]
    """Dropped, by reason, over the whole life of the folder."""
    refused: int
    """Refused because the outbox was full, since opening; they were never accepted."""
    written_bytes: int
    """Bytes written to the disk since opening."""

    @classmethod
    def _of_native(cls, document: Mapping[str, Any]) -> Counters:
        values = dict(document)
        age = values.pop("oldest_age_ms")
        return cls(
            account=Account(**values.pop("account")),
            oldest_age=None if age is None else timedelta(milliseconds=age),
            **values,
        )
