"""The C loop of handshakes.c, on the OpenSSL of `cryptography` or on the system's."""

from __future__ import annotations

import ctypes
from functools import cache
from time import perf_counter

from cryptography.hazmat.bindings import _rust

from bench import tools
from bench.figures import BenchError, Sample
from bench.usage import cpu

# The order is that of `struct table` in handshakes.c.
_FUNCTIONS = {
    "method": "TLS_client_method",
    "ctx_new": "SSL_CTX_new",
    "ctx_free": "SSL_CTX_free",
    "ctx_set_verify": "SSL_CTX_set_verify",
    "ctx_set_session_cache_mode": "SSL_CTX_set_session_cache_mode",
    "ctx_set_groups": "SSL_CTX_set1_curves_list",
    "ssl_new": "SSL_new",
    "ssl_free": "SSL_free",
    "set_fd": "SSL_set_fd",
    "set_server_name": "SSL_set_tlsext_host_name",
    "set_status_type": "SSL_set_tlsext_status_type",
    "set_connect_state": "SSL_set_connect_state",
    "do_handshake": "SSL_do_handshake",
    "get_staple": "SSL_get_tlsext_status_ocsp_resp",
    "version": "OpenSSL_version",
}


class Table(ctypes.Structure):
    """The functions of one OpenSSL."""

    _fields_ = [(field, ctypes.c_void_p) for field in _FUNCTIONS]


class CLoop:
    """Handshakes one after the other with one context; `groups` None leaves OpenSSL's own."""

    def __init__(self, table: Table, groups: str | None) -> None:
        self._table = table
        library = _library()
        assert library is not None
        self._handshakes = library.handshakes
        names = groups.encode() if groups is not None else None
        self._context = library.context_new(ctypes.byref(table), names)
        if not self._context:
            raise BenchError(f"this OpenSSL refuses the groups {groups}")

    @property
    def version(self) -> str:
        """What the OpenSSL beneath calls itself."""
        ask = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_int)(self._table.version)
        return ask(0).decode()

    def run(self, port: int, name: str, count: int) -> Sample:
        """Make `count` handshakes with 127.0.0.1; each must bring a staple."""
        before, begun = cpu(), perf_counter()
        good = self._handshakes(
            ctypes.byref(self._table), self._context, b"127.0.0.1", port, name.encode(), count
        )
        sample = Sample(perf_counter() - begun, count, cpu() - before)
        if good != count:
            raise BenchError(f"the C loop got {good} staples of {count}")
        return sample


@cache
def bundled() -> Table | None:
    """The functions of the OpenSSL inside `cryptography`'s binding; None without a compiler."""
    if _library() is None:
        return None
    # The binding exports nothing to the linker; cffi knows where its C wrappers are (one call each).
    binding, ffi = _rust._openssl.lib, _rust._openssl.ffi
    found = (ffi.cast("uintptr_t", ffi.addressof(binding, name)) for name in _FUNCTIONS.values())
    return Table(*map(int, found))


@cache
def system() -> Table | None:
    """The functions of the system's libssl.so.3; None without one."""
    library, table = _library(), Table()
    if library is None or not library.system_table(ctypes.byref(table)):
        return None
    return table


@cache
def _library() -> ctypes.CDLL | None:
    built = tools.compiled("handshakes.c", "-shared", "-fPIC")
    if built is None:
        return None
    library = ctypes.CDLL(str(built))
    library.context_new.restype = ctypes.c_void_p
    library.context_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.handshakes.argtypes = [
        *[ctypes.c_void_p] * 2,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    return library
