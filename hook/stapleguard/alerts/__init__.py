"""Alert channels: one small file each. `send` is the one way to any of them, bounded and without secrets.

Two manners: most channels are told of changes and have a queue (`outbox`); Alertmanager and dead man's
switches are told the whole state at each run of the timer, and what they missed is made good by the next.
"""

from __future__ import annotations

import http.client
import smtplib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from stapleguard.alerts import (
    alertmanager,
    apprise,
    command,
    discord,
    healthchecks,
    mail,
    ntfy,
    pagerduty,
    slack,
    teams,
    webhook,
)
from stapleguard.alerts.alertmanager import Labels
from stapleguard.alerts.credentials import Redactor, resolve
from stapleguard.alerts.fault import SendFault
from stapleguard.channels import Channel, Kind, Reference
from stapleguard.model import StapleguardError, escape
from stapleguard.notice import Notice
from stapleguard.wire.post import Post, post

STATE: Final = frozenset({Kind.ALERTMANAGER, Kind.HEALTHCHECKS})
"""Kinds that are told the state rather than changes."""

_REQUESTS: Final[Mapping[Kind, Callable[[Notice, str, str], Post]]] = {
    Kind.WEBHOOK: webhook.request,
    Kind.SLACK: slack.request,
    Kind.DISCORD: discord.request,
    Kind.TEAMS: teams.request,
    Kind.NTFY: ntfy.request,
    Kind.PAGERDUTY: pagerduty.request,
    Kind.ALERTMANAGER: alertmanager.request,
    Kind.HEALTHCHECKS: healthchecks.request,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """How one attempt ended: `problem` is empty when the other side took it, and holds no secret."""

    channel: str
    problem: str = ""

    @property
    def taken(self) -> bool:
        """Whether it arrived."""
        return not self.problem


def send(channel: Channel, notice: Notice, environment: Mapping[str, str]) -> Sent:
    """Send one message through one channel."""

    def work(keys: _Keys) -> None:
        match channel.kind:
            case Kind.MAIL:
                mail.send(channel, notice, keys.password)
            case Kind.COMMAND:
                command.send(channel, notice)
            case Kind.APPRISE:
                apprise.send(notice, keys.url)
            case _:
                _post(channel, _REQUESTS[channel.kind](notice, keys.url, keys.token))

    return _bounded(channel, environment, work)


def report_state(
    channel: Channel,
    current: Sequence[Notice],
    ended: Sequence[Labels],
    now: datetime,
    environment: Mapping[str, str],
) -> Sent:
    """Tell a channel of `STATE` all that is the matter; nothing is sent where there is nothing to say."""

    def work(keys: _Keys) -> None:
        match channel.kind:
            case Kind.ALERTMANAGER:
                if current or ended:
                    _post(channel, alertmanager.report(current, ended, keys.url, keys.token, now))
            case Kind.HEALTHCHECKS:
                _post(channel, healthchecks.report(current, keys.url))
            case _:
                raise AssertionError(f"{channel.kind} is told of changes")

    return _bounded(channel, environment, work)


@dataclass(frozen=True, slots=True, repr=False)
class _Keys:
    url: str
    token: str
    password: str


def _bounded(channel: Channel, environment: Mapping[str, str], work: Callable[[_Keys], None]) -> Sent:
    """Do it in a thread that is left behind when the time is over: a peer may send one byte a second."""
    try:
        keys = _Keys(*(_value(one, environment) for one in (channel.url, channel.token, channel.password)))
    except StapleguardError as error:
        return Sent(channel.name, error.message)
    redact = Redactor([one for one in (keys.url, keys.token, keys.password) if one])
    problem = [f"no answer within {channel.timeout:g} seconds"]

    def target() -> None:
        try:
            work(keys)
            problem[0] = ""
        except (SendFault, OSError, smtplib.SMTPException, http.client.HTTPException, ValueError) as error:
            problem[0] = redact(_words(error))
        except Exception as error:  # noqa: BLE001 - an optional library may raise anything, and must not end us
            problem[0] = redact(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=target, name=f"alert-{channel.name}", daemon=True)
    thread.start()
    thread.join(channel.timeout)
    return Sent(channel.name, problem[0])


def _value(reference: Reference | None, environment: Mapping[str, str]) -> str:
    return resolve(reference, environment) if reference is not None else ""


def _words(error: Exception) -> str:
    match error:
        case SendFault():
            return str(error)
        case smtplib.SMTPResponseException():
            said = error.smtp_error
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            return f"the server answered {error.smtp_code}: {text}"
        case TimeoutError():
            return "timed out"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return f"{error}" or type(error).__name__


def _post(channel: Channel, request: Post) -> None:
    answer = post(request, channel.timeout, channel.ca_file, channel.proxy)
    if not 200 <= answer.status < 300:
        raise SendFault(f"the server answered {answer.status}: {escape(answer.text, 200)}")
