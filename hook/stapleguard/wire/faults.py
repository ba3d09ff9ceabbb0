"""What went wrong in an exchange, as a code: the libraries wrap the error of the system several times."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError

from stapleguard.finding import Code
from stapleguard.model import escape


def dns_code(error: socket.gaierror) -> Code:
    """Tell a name that does not exist from a resolver that does not work."""
    lasting = (socket.EAI_NONAME, socket.EAI_NODATA)
    return Code.DNS_NAME_NOT_FOUND if error.errno in lasting else Code.DNS_SERVER_FAILURE


def classify(error: BaseException) -> tuple[Code, str]:
    """Find the code of a failed exchange; the libraries wrap the error of the system several times."""
    causes = list(_causes(error))
    for cause in causes:
        match cause:
            case socket.gaierror():
                return dns_code(cause), "the name of the proxy was not resolved"
            case ConnectionRefusedError():
                return Code.NET_REFUSED, "connection refused"
            case ssl.SSLError():
                return Code.NET_RESET, f"TLS failed: {escape(str(cause.reason or cause))}"
            case ReadTimeoutError():
                return Code.RESPONDER_SLOW, "connected, but no whole answer within the time"
            case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH):
                return Code.NET_BLOCKED, "host or network unreachable"
            case ConnectionError() | http.client.IncompleteRead():
                pass  # RemoteDisconnected is a BadStatusLine too
            case http.client.HTTPException():
                return Code.RESPONDER_NOT_OCSP, "the answer is not HTTP"
    if any(isinstance(cause, ConnectTimeoutError | NewConnectionError) for cause in causes):
        return Code.NET_BLOCKED, "no connection within the time, or none possible"
    return Code.NET_RESET, "the connection was cut off before the whole answer"


def _causes(error: BaseException) -> Iterator[BaseException]:
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        near = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [other for other in near if isinstance(other, BaseException)]
