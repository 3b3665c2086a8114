"""Identities of devices and modules."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

__all__ = ["DeviceIdentity", "ModuleIdentity"]


class _Identity:
    """An identity over the contract's JSON document, which `document` is; changing an attribute changes it there."""

    __slots__ = ("document",)

    document: Dict[str, Any]
    """The whole document, with what the hub says beyond the attributes."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)

    def _set(self, name: str, value: Any) -> None:
        if value is None:
            self.document.pop(name, None)
        else:
            self.document[name] = value

    @property
    def etag(self) -> Optional[str]:
        """Of this state; None overwrites whatever there is."""
        return self.document.get("etag")

    @etag.setter
    def etag(self, value: Optional[str]) -> None:
        self._set("etag", value)

    @property
    def generation(self) -> str:
        """Of this creation; empty before it was created."""
        return self.document.get("generationId") or ""

    @property
    def authentication(self) -> Dict[str, Any]:
        """How it proves itself: ``{"type": "sas", "symmetricKey": {"primaryKey": …, "secondaryKey": …}}`` (without keys the
        hub makes them), ``{"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": …, "secondaryThumbprint": …}}``,
        ``{"type": "certificateAuthority"}`` or ``{"type": "none"}``."""
        return self.document.get("authentication") or {"type": "sas"}

    @authentication.setter
    def authentication(self, value: Optional[Dict[str, Any]]) -> None:
        self._set("authentication", value)

    def __eq__(self, other: object) -> bool:
        return self.document == other.document if isinstance(other, type(self)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class DeviceIdentity(_Identity):
    """A device as the registry has it.

    :param id: Its id, case-sensitive.
    :param status: ``enabled`` or ``disabled``.
    :param status_reason: Why, up to 128 characters.
    :param authentication: How it proves itself; without it the hub makes keys.
    """

    __slots__ = ()

    def __init__(
        self,
        id: str,
        *,
        status: str = "enabled",
        status_reason: Optional[str] = None,
        authentication: Optional[Dict[str, Any]] = None,
    ) -> None:
        super().__init__({"deviceId": id, "status": status})
        self.status_reason = status_reason
        self.authentication = authentication or {"type": "sas"}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DeviceIdentity:
        """The identity this document is, such as a query finds."""
        identity = cls.__new__(cls)
        _Identity.__init__(identity, document)
        return identity

    @classmethod
    def _of_native(cls, text: str) -> DeviceIdentity:
        return cls.from_document(json.loads(text))

    @property
    def id(self) -> str:
        """Its id, case-sensitive."""
        return self.document["deviceId"]  # type: ignore[no-any-return]

    @property
    def status(self) -> str:
        """Whether it may connect: ``enabled`` or ``disabled``."""
        return self.document.get("status") or "enabled"

    @status.setter
    def status(self, value: str) -> None:
        self._set("status", value)

    @property
    def status_reason(self) -> Optional[str]:
        """Why, up to 128 characters."""
        return self.document.get("statusReason")

    @status_reason.setter
    def status_reason(self, value: Optional[str]) -> None:
        self._set("statusReason", value)

    @property
    def connected(self) -> bool:
        """Whether it is connected by MQTT or AMQP, as far as the hub knows; may lag minutes on Azure."""
        return self.document.get("connectionState") == "Connected"

    @property
    def pending_commands(self) -> int:
        """Commands in its queue."""
        return self.document.get("cloudToDeviceMessageCount") or 0

    def __repr__(self) -> str:
        return f"DeviceIdentity({self.id!r}, status={self.status!r})"


class ModuleIdentity(_Identity):
    """A module of a device.

    :param device_id: Id of its device.
    :param id: Its id among the modules of the device.
    :param managed_by: Who manages it.
    :param authentication: How it proves itself; without it the hub makes keys.
    """

    __slots__ = ()

    def __init__(
        self,
        device_id: str,
        id: str,
        *,
        managed_by: Optional[str] = None,
        authentication: Optional[Dict[str, Any]] = None,
    ) -> None:
        super().__init__({"deviceId": device_id, "moduleId": id})
        self.managed_by = managed_by
        self.authentication = authentication or {"type": "sas"}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ModuleIdentity:
        """The identity this document is."""
        identity = cls.__new__(cls)
        _Identity.__init__(identity, document)
        return identity

    @classmethod
    def _of_native(cls, text: str) -> ModuleIdentity:
        return cls.from_document(json.loads(text))

    @property
    def device_id(self) -> str:
        """Id of its device."""
        return self.document["deviceId"]  # type: ignore[no-any-return]

    @property
    def id(self) -> str:
        """Its id among the modules of the device."""
        return self.document["moduleId"]  # type: ignore[no-any-return]

    @property
    def managed_by(self) -> Optional[str]:
        """Who manages it."""
        return self.document.get("managedBy")

    @managed_by.setter
    def managed_by(self, value: Optional[str]) -> None:
        self._set("managedBy", value)

    def __repr__(self) -> str:
        return f"ModuleIdentity({self.device_id!r}, {self.id!r})"
