"""Mail: handed to the local sendmail, or to a server over STARTTLS or TLS, with a login or without."""

from __future__ import annotations

import hashlib
import json
import re
import smtplib
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import assert_never

from stapleguard import host
from stapleguard.alerts.fault import SendFault
from stapleguard.channels import Channel, Security
from stapleguard.notice import Event, Notice, as_json, body, subject
from stapleguard.wire.post import client_context


def compose(channel: Channel, notice: Notice) -> EmailMessage:
    """Compose the message: plain text, and the facts as JSON beside it. One trouble is one thread."""
    name = re.sub(r"[^A-Za-z0-9.-]", "-", notice.host)[:100] or "localhost"
    message = EmailMessage(policy=SMTP)
    message["From"] = channel.sender or f"root@{name}"
    message["To"] = ", ".join(channel.to)
    message["Subject"] = subject(notice)
    message["Date"] = format_datetime(notice.at)
    message["Message-ID"] = f"<{_digest(notice.key, notice.event.value, notice.at.isoformat())}@{name}>"
    message["References"] = f"<{_digest(notice.key)}@{name}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Stapleguard-Event"] = notice.event.value
    if notice.event is Event.TROUBLE:
        message["X-Priority"] = "1"
    message.set_content(body(notice), cte="quoted-printable")
    facts = json.dumps(as_json(notice), indent=1).encode("ascii")
    message.add_attachment(facts, "application", "json", filename="facts.json")
    return message


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


def send(channel: Channel, notice: Notice, password: str) -> None:
    """Send it; SendFault when it was not taken for every recipient."""
    message = compose(channel, notice)
    if channel.server:
        _by_server(channel, message, password, notice.host)
    else:
        _by_sendmail(channel, message)


def _by_sendmail(channel: Channel, message: EmailMessage) -> None:
    # Local mailers want line ends of the local kind; they are made from the same message.
    argv = [channel.sendmail, "-t", "-i"]
    done = host.run(argv, channel.timeout, given=message.as_bytes(policy=SMTP.clone(linesep="\n")))
    if done.status != 0:
        raise SendFault(f"{channel.sendmail} ended with {done.status}: {done.stderr.strip()[-200:]}")


def _by_server(channel: Channel, message: EmailMessage, password: str, name: str) -> None:
    place, port = channel.place
    client: smtplib.SMTP
    # A name of our own is given since smtplib would ask the DNS for it, which has no time limit.
    match channel.security:
        case Security.TLS:
            context = client_context(channel.ca_file)
            client = smtplib.SMTP_SSL(place, port, name, timeout=channel.timeout, context=context)
        case Security.STARTTLS | Security.NONE:
            client = smtplib.SMTP(place, port, name, timeout=channel.timeout)
        case _ as never:
            assert_never(never)
    with client:
        if channel.security is Security.STARTTLS:
            # Raises where the server does not offer it: a password is never sent in clear instead.
            client.starttls(context=client_context(channel.ca_file))
        if channel.user:
            client.login(channel.user, password)
        refused = client.send_message(message)
    if refused:
        raise SendFault(f"the server refused {', '.join(refused)}")
