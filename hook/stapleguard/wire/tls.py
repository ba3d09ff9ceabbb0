"""One TLS client connection as OpenSSL makes it: what is asked for, what came, and what its errors mean.

The bytes go through memory: handed a socket, OpenSSL ignores HelloRequest messages for as long as more of
them come (one peer held the whole thread for as long as it liked), and nothing else bounds what a peer may
send. A context is shared by all handshakes of a kind and holds no roots, so that the staple stays visible
when the chain is bad. Sessions are never resumed: a resumed session hides the staple.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from stapleguard.model import Ask, HandshakeFault, KeyType, TlsVersion, escape

TURN: Final = 16384
"""Bytes that are moved in one turn."""
_MAX_NAME: Final = 253

_VERSIONS: Final = {TlsVersion.TLS1_2: SSL.TLS1_2_VERSION, TlsVersion.TLS1_3: SSL.TLS1_3_VERSION}
_CIPHERS: Final = {
    KeyType.RSA: b"ECDHE+aRSA:DHE+aRSA",
    KeyType.ECDSA: b"ECDHE+aECDSA",
    KeyType.EDDSA: b"ECDHE+aECDSA",
}
_SIGALGS: Final = {
    KeyType.RSA: b"rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:rsa_pkcs1_sha256",
    KeyType.ECDSA: b"ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512",
    KeyType.EDDSA: b"ed25519:ed448",
}
# No post-quantum group: its share costs both sides a fifth of a handshake and neither hides nor shows a
# staple. Offered last it costs more: OpenSSL 3.5 as a server asks for it by a second round trip.
_GROUPS: Final = b"X25519:P-256:P-384:P-521"


class CannotPin(Exception):
    """The installed pyOpenSSL has no way to ask for that key type."""


def connection(ask: Ask, staple: list[bytes]) -> SSL.Connection:
    """Make a client connection without a socket that will put what is stapled into `staple`.

    Raises UnicodeError for a server name that cannot be sent, CannotPin.
    """
    made = SSL.Connection(_context(ask.tls, ask.key_type), None)
    # The callback finds its own box here: an exception or a shared list would reach another connection.
    made.set_app_data(staple)
    name = ask.endpoint.server_name
    if name:
        encoded = _sni(name)
        if encoded:
            made.set_tlsext_host_name(encoded)
    made.request_ocsp()
    made.set_connect_state()
    return made


def chain(made: SSL.Connection) -> tuple[bytes, ...]:
    """Take the certificates that the peer sent, leaf first, DER; raises one of REFUSALS where one is none."""
    sent = made.get_peer_cert_chain() or []
    return tuple(_readable(crypto.dump_certificate(crypto.FILETYPE_ASN1, one)) for one in sent)


@functools.lru_cache(maxsize=1024)
def _readable(der: bytes) -> bytes:
    # OpenSSL takes certificates that `cryptography` does not read, and all that follows needs to read them.
    x509.load_der_x509_certificate(der)
    return der


def produced(made: SSL.Connection) -> bytes:
    """Take what OpenSSL wants to send."""
    try:
        return made.bio_read(TURN)
    except SSL.WantReadError:
        return b""


@functools.lru_cache(maxsize=4096)
def _sni(name: str) -> bytes:
    """Encode a server name (RFC 6066 section 3: A-labels, no trailing dot), b'' for an address."""
    if is_address(name):
        return b""
    encoded = name.removesuffix(".").encode("idna")
    if len(encoded) > _MAX_NAME or not encoded.decode().isprintable():
        raise UnicodeError("no host name")
    return encoded


@functools.lru_cache(maxsize=4096)
def is_address(name: str) -> bool:
    """Whether a name is an IP literal."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@functools.cache
def _context(tls: TlsVersion | None, key_type: KeyType | None) -> SSL.Context:
    # No roots, no callback: OpenSSL's own look at the chain then ends at its first error, before it verifies
    # a single signature of it. The chain is judged afterwards, once for the same bytes.
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 34 KiB for each peer that is waited for
    _configure(context, "SSL_CTX_set1_curves_list", _GROUPS)  # where it cannot be told, its own list stays
    if tls is not None:
        context.set_min_proto_version(_VERSIONS[tls])
        context.set_max_proto_version(_VERSIONS[tls])
    if key_type is not None:
        context.set_cipher_list(_CIPHERS[key_type])
        # The aECDSA suites of TLS 1.2 are those of EdDSA too (RFC 8422 section 5.10).
        if tls is not TlsVersion.TLS1_2 or key_type is KeyType.EDDSA:
            _pin_signature_algorithms(context, _SIGALGS[key_type])
    context.set_ocsp_client_callback(_keep_staple)
    return context


def _pin_signature_algorithms(context: SSL.Context, names: bytes) -> None:
    """Ask for one key type under TLS 1.3; pyOpenSSL wraps no call for it, the binding beneath has one."""
    if not _configure(context, "SSL_CTX_set1_sigalgs_list", names):
        raise CannotPin("this pyOpenSSL cannot pin the key type under TLS 1.3")


def _configure(context: SSL.Context, function: str, names: bytes) -> bool:
    call = getattr(getattr(SSL, "_lib", None), function, None)
    raw = getattr(context, "_context", None)
    if call is None or raw is None:
        return False
    if call(raw, names) == 1:
        return True
    getattr(SSL, "_lib").ERR_clear_error()  # noqa: B009 - mypy: it has no public name
    return False


def _keep_staple(made: SSL.Connection, staple: bytes, _data: object) -> bool:
    """Keep what came; raising or returning False here would abort this or another handshake."""
    box = made.get_app_data()
    if isinstance(box, list):
        box.append(staple)
    return True


def fault(error: SSL.Error) -> tuple[HandshakeFault, str]:
    """Say what an error of the handshake means."""
    reasons = (
        [str(entry[-1]) for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    )
    text = escape("; ".join(reasons) or "the handshake failed")
    plain = ("wrong version number", "http request", "packet length too long", "unknown protocol")
    if any(mark in reason for reason in reasons for mark in plain):
        return HandshakeFault.NOT_TLS, f"what answers is not TLS ({text})"
    if any("unexpected eof" in reason for reason in reasons):
        return HandshakeFault.RESET, f"closed during the handshake ({text})"
    return HandshakeFault.ALERT, text
