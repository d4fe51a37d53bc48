"""Alert people to an incident: always in the log, and through every channel that is configured.

Channels are Apprise addresses (`mailtos://…`, `slack://…`, `jsons://…` and a hundred more). A failed delivery is logged
and retried by the next check; it never fails the check.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_logger = logging.getLogger(__name__)

LOG_CHANNEL: Final = "log"


@dataclass(frozen=True, slots=True)
class Alert:
    """One message."""

    title: str
    text: str
    link: str


def send_alert(alert: Alert, urls: Collection[str], notified: Collection[str] = ()) -> list[str]:
    """Send an alert through every channel that did not take it before; return the channels that take it now.

    Args:
        alert: the message.
        urls: Apprise addresses. They may hold passwords, so channels are named by scheme and a hash.
        notified: the channels that took it before.
    """
    import apprise  # it takes half a second to import, and few checks send anything

    delivered = []
    if LOG_CHANNEL not in notified:
        _logger.warning("%s %s %s", alert.title, alert.text, alert.link)
        delivered.append(LOG_CHANNEL)
    for url in urls:
        channel = channel_name(url)
        if channel in notified:
            continue
        sender = apprise.Apprise()
        if not sender.add(url):
            _logger.warning("EMOTION_ALERT_URLS has an invalid address for %s. See Apprise's documentation.", channel)
        elif sender.notify(title=alert.title, body=f"{alert.text}\n\n{alert.link}"):
            delivered.append(channel)
        else:
            _logger.warning("The alert was not delivered through %s. The next check tries again.", channel)
    return delivered


def channel_name(url: str) -> str:
    """Return a name for an address that reveals none of its secrets."""
    return f"{url.partition(':')[0]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
