"""Tell people of an incident: in the log always, by webhook and by e-mail where they are set.

A message that cannot be delivered is reported and holds up nothing: the incident stands in Dagster anyway.
"""

from __future__ import annotations

import json
import smtplib
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from http.client import HTTPException

from emotion_assets.core.errors import InvalidSettingError

_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Alert:
    """One message."""

    title: str
    text: str
    link: str
    model_version: str
    severity: str


@dataclass(frozen=True, slots=True)
class AlertTargets:
    """Where messages go; empty fields are no targets."""

    webhook_url: str = ""
    """Gets the alert as JSON by POST."""
    email_to: str = ""
    smtp_server: str = ""
    """As host:port; needed for e-mail."""


def send_alert(
    alert: Alert, targets: AlertTargets, log: Callable[[str], None], notified_channels: Collection[str] = ()
) -> list[str]:
    """Send an alert to every target that did not take it before, and return the names of those that take it now.

    Args:
        alert: the message.
        targets: where to.
        log: gets the message, and a line for each target that failed.
        notified_channels: the names of those that took it before.
    """
    delivered = []
    if "log" not in notified_channels:
        log(f"{alert.title} {alert.text} {alert.link}")
        delivered.append("log")
    for name, is_set, send in (
        ("webhook", bool(targets.webhook_url), _post),
        ("e-mail", bool(targets.email_to), _mail),
    ):
        if is_set and name not in notified_channels:
            try:
                send(alert, targets)
            except (OSError, HTTPException, smtplib.SMTPException, ValueError) as error:
                log(f"The alert was not delivered by {name}: {error}")
            else:
                delivered.append(name)
    return delivered


def _post(alert: Alert, targets: AlertTargets) -> None:
    if not targets.webhook_url.startswith(("http://", "https://")):
        raise InvalidSettingError("EMOTION_ALERT_WEBHOOK must begin with http:// or https://.")
    # `text` is what chat services show.
    body = {**asdict(alert), "text": f"{alert.title} {alert.text} {alert.link}"}
    request = urllib.request.Request(  # noqa: S310 -- checked above
        targets.webhook_url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise ConnectionError(f"it answered {error.code}") from error


def _mail(alert: Alert, targets: AlertTargets) -> None:
    host, _, port = targets.smtp_server.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidSettingError(f"EMOTION_ALERT_SMTP is {targets.smtp_server!r}, but must be host:port for e-mail.")
    message = EmailMessage()
    message["Subject"], message["To"], message["From"] = alert.title, targets.email_to, targets.email_to
    message.set_content(f"{alert.text}\n\n{alert.link}\n\nModel {alert.model_version}, severity {alert.severity}.\n")
    with smtplib.SMTP(host, int(port), timeout=_TIMEOUT_SECONDS) as server:
        server.send_message(message)
