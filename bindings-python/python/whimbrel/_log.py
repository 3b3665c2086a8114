"""The log of the core, as that of Python: loggers ``whimbrel`` and below, such as ``whimbrel.device``."""

from __future__ import annotations

import logging

from . import _native

_LOGGER = logging.getLogger("whimbrel")
# A library says nothing unless the program wants to hear it.
_LOGGER.addHandler(logging.NullHandler())


def start() -> None:
    """Called whenever a client is opened: the first time records begin to come, on a thread of their own; each time what is
    recorded follows what the loggers want."""
    _native.log_level(_wanted())
    _native.start_log(_deliver)


def _wanted() -> int:
    """The finest level that any of our loggers wants."""
    levels = [_LOGGER.getEffectiveLevel()]
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if name.startswith("whimbrel.") and isinstance(logger, logging.Logger):
            levels.append(logger.getEffectiveLevel())
    return min(levels)


def _deliver(level: int, target: str, message: str, lost: int) -> int:
    if lost:
        _LOGGER.warning("%d records were lost", lost)
    logging.getLogger(target.replace("::", ".")).log(level, "%s", message)
    return _wanted()
