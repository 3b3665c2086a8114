"""Messages, and the words that go with them."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Tuple, TypedDict, TypeVar, Union

from . import _native
from ._convert import Buffer, dumped, ms, of_unix_ms, unix_ms

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["CommandFields", "Durability", "FeedbackWanted", "Lane", "Message", "MessageFields", "Overflow", "Protocol"]


class _Word(str, enum.Enum):
    """A word that is a `str` and compares equal to it."""

    def __new__(cls, value: str) -> Self:
        word = str.__new__(cls, value)
        word._value_ = value
        return word

    def __str__(self) -> str:
        return str(self.value)


class Lane(_Word):
    """The queue of the outbox a message waits in. Order is kept within a lane."""

    TELEMETRY = "telemetry"
    """Ordinary measurements."""
    ALERT = "alert"
    """Overtakes all waiting telemetry, and is never dropped to make room for it."""


class Durability(_Word):
    """What `send` waits for."""

    ON_DISK = "on-disk"
    """Until the message is on the disk."""
    INTERVAL = "interval"
    """For nothing: the disk is synced at an interval, and a power cut may take what came since."""
    MEMORY = "memory"
    """For nothing: the system writes when it likes."""


class Overflow(_Word):
    """What happens to a message for which the outbox has no room."""

    REJECT = "reject"
    """`send` raises `OutboxFull`."""
    DROP_OLDEST = "drop-oldest"
    """The oldest messages make room."""
    DROP_NEWEST = "drop-newest"
    """It is taken in and dropped at once."""


class Protocol(_Word):
    """How a device speaks to its hub."""

    AUTO = "auto"
    """The best one the hub has."""
    MQTT3 = "mqtt3"
    """MQTT 3.1.1."""
    MQTT5 = "mqtt5"
    """MQTT 5."""
    AMQP = "amqp"
    """AMQP 1.0."""
    HTTP = "http"
    """HTTP, where commands are asked for."""


class FeedbackWanted(_Word):
    """Which feedback the hub is to keep about a command."""

    NONE = "none"
    """None."""
    POSITIVE = "positive"
    """When it was completed."""
    NEGATIVE = "negative"
    """When it ended otherwise."""
    FULL = "full"
    """However it ends."""


class MessageFields(TypedDict, total=False):
    """What a message may say besides its body; see `Message`."""

    lane: Optional[Union[Lane, str]]
    properties: Optional[Mapping[str, str]]
    message_id: Optional[str]
    correlation_id: Optional[str]
    user_id: Optional[str]
    content_type: Optional[str]
    content_encoding: Optional[str]
    creation_time: Optional[datetime]
    message_schema: Optional[str]
    output_name: Optional[str]
    interface_id: Optional[str]
    component: Optional[str]
    expires_in: Optional[timedelta]
    durability: Optional[Union[Durability, str]]


class CommandFields(TypedDict, total=False):
    """What a command may say besides its body."""

    expires_in: Optional[timedelta]
    feedback: Optional[Union[FeedbackWanted, str]]
    properties: Optional[Mapping[str, str]]
    message_id: Optional[str]
    correlation_id: Optional[str]
    user_id: Optional[str]
    content_type: Optional[str]
    content_encoding: Optional[str]


class Message(_native.Message):
    """A message to be sent with `send_many`, complete and copied: what it was made from may change afterwards.

    :param body: Anything with the buffer protocol, C-contiguous: `bytes`, `bytearray`, `memoryview`, an array. A `str` is
        refused: encode it, or use `Message.json`.
    :param lane: `Lane.TELEMETRY` unless said otherwise.
    :param properties: Application properties.
    :param message_id: The id to find the receipt by. Without one the outbox makes one.
    :param correlation_id: Joins this message to another one.
    :param user_id: Whom it is from.
    :param content_type: Of the body, such as ``application/json``.
    :param content_encoding: The character set of the body, such as ``utf-8``.
    :param creation_time: When the measurement was made, with a time zone; kept to the millisecond.
    :param message_schema: Schema of the content.
    :param output_name: Output of a module.
    :param interface_id: Interface id of a security message.
    :param component: Component the message belongs to.
    :param expires_in: Time to live, counted from `send`, also while offline; rounded up to milliseconds. Zero is refused by
        `send`.
    :param durability: What `send` waits for, instead of the outbox's own setting.
    :raises InvalidArgument: For what cannot be used, naming it.
    """

    __slots__ = ("_said",)

    _said: Tuple[bytes, Dict[str, Any]]

    def __new__(
        cls,
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
    ) -> Message:
        """See the class."""
        fields = (
            lane,
            properties,
            message_id,
            correlation_id,
            user_id,
            content_type,
            content_encoding,
            None if creation_time is None else unix_ms("message", "creation_time", creation_time),
            message_schema,
            output_name,
            interface_id,
            component,
            None if expires_in is None else ms("message", "expires_in", expires_in),
            durability,
        )
        return super().__new__(cls, body, fields)

    @classmethod
    def json(cls, value: Any, **fields: Unpack[MessageFields]) -> Message:
        """A message with `value` as JSON in UTF-8, which `content_type` and `content_encoding` say unless they are given.
        Otherwise as the class.

        :raises InvalidArgument: For what JSON cannot hold, such as NaN.
        """
        return cls(dumped("message", value), **with_json(fields))

    def __repr__(self) -> str:
        said = self._all()[1]
        return f"Message(<{len(self._all()[0])} bytes>, lane={said['lane']!r}, message_id={said['message_id']!r})"

    def __eq__(self, other: object) -> bool:
        return self._all() == other._all() if isinstance(other, Message) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._all()[0])

    def _all(self) -> Tuple[bytes, Dict[str, Any]]:
        try:
            return self._said
        except AttributeError:
            self._said = self.said()
            return self._said

    @property
    def body(self) -> bytes:
        """The body."""
        return self._all()[0]

    @property
    def lane(self) -> Lane:
        """The queue it waits in."""
        return Lane(self._all()[1]["lane"])

    @property
    def properties(self) -> Dict[str, str]:
        """Application properties."""
        return dict(self._all()[1]["properties"])

    @property
    def message_id(self) -> Optional[str]:
        """The id to find the receipt by, where the program chose one."""
        return self._all()[1]["message_id"]  # type: ignore[no-any-return]

    @property
    def expires_in(self) -> Optional[timedelta]:
        """Time to live."""
        value = self._all()[1]["expires_in_ms"]
        return None if value is None else timedelta(milliseconds=value)

    @property
    def creation_time(self) -> Optional[datetime]:
        """When the measurement was made."""
        return of_unix_ms(self._all()[1]["creation_time_ms"])


F = TypeVar("F", MessageFields, CommandFields)


def with_json(fields: F) -> F:
    """The fields of a message with JSON as its body."""
    if fields.get("content_type") is None:
        fields["content_type"] = "application/json"
    if fields.get("content_encoding") is None:
        fields["content_encoding"] = "utf-8"
    return fields
