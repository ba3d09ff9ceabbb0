"""The files of one lineage: read and put together, or told why not; written out again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from stapleguard.finding import Code, Finding, find
from stapleguard.material.certificate import (
    REFUSALS,
    SERVER_KEY_NAMES,
    dn,
    issued,
    key_digest,
    label,
    leaf_facts,
    public_key_digest,
    quiet,
    same_name,
    to_pem,
    without_roots,
)
from stapleguard.model import Json, LeafFacts, SourceFiles, escape

_KINDS: Final = ("privkey", "cert", "chain", "fullchain")
_FILE_BYTES: Final = 1 << 20
_FILE_CERTIFICATES: Final = 10

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,40})-----")
_CERTIFICATE_LABELS: Final = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE"})  # RFC 7468 section 5.1
_Parents: TypeAlias = Mapping[x509.Certificate, Sequence[x509.Certificate]]


@dataclass(frozen=True, slots=True)
class Material:
    """One private key, its leaf and the intermediates, known to belong together.

    `key_pem` is the source's own PEM block of the key, with one line end after it. `chain` holds
    intermediates only, the leaf's issuer first; it may be empty. `paths` tells which file the
    `privkey`, `cert` (leaf), `chain` and `fullchain` came from, escaped for messages.
    """

    key_pem: bytes = field(repr=False)
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    facts: LeafFacts
    paths: Mapping[str, str]

    @property
    def issuer(self) -> x509.Certificate | None:
        """The certificate of `chain` whose key signed the leaf; None when it is not there."""
        return next((candidate for candidate in self.chain if issued(self.leaf, candidate)), None)


@dataclass(frozen=True, slots=True)
class _Key:
    pem: bytes = field(repr=False)
    spki_sha256: str


@dataclass(frozen=True, slots=True)
class _Found:
    """The certificates of every file that is there, in file order, and how a message calls each file."""

    certificates: Mapping[str, tuple[x509.Certificate, ...]]
    paths: Mapping[str, str]

    @property
    def leaf_file(self) -> str:
        return "cert" if "cert" in self.certificates else "fullchain"

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[self.leaf_file][0]

    @property
    def chain_file(self) -> str:
        return next(kind for kind in ("chain", "fullchain", "cert") if kind in self.certificates)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What the chain was taken from, roots and all."""
        found = self.certificates[self.chain_file]
        return found if self.chain_file == "chain" else found[1:]


def read(source: SourceFiles) -> Material | tuple[Finding, ...]:
    """Read the files of one lineage (PEM), in whatever split the ACME client left them.

    The leaf is the first certificate of `cert`, else of `fullchain`; the chain is `chain`, else what
    follows the leaf. Self-signed roots in a chain file are tolerated and dropped: servers need not
    send them (RFC 8446 section 4.4.2). Anything else that is not the issuer, by name and signature,
    of the one before it is refused. At most 10 certificates and 1 MiB a file. No input raises.
    """
    paths = {kind: escape(source.paths.get(kind, f"{kind}.pem"), 1024) for kind in _KINDS}
    findings: list[Finding] = []
    key = _read_key(source.privkey)
    if isinstance(key, str):
        findings.append(_unreadable(paths["privkey"], key))
    files: dict[str, tuple[x509.Certificate, ...]] = {}
    present = {"cert": source.cert, "chain": source.chain, "fullchain": source.fullchain}
    for kind, data in present.items():
        if not data.strip() and (kind != "cert" or source.fullchain.strip()):
            continue
        certificates = _read_certificates(data)
        if isinstance(certificates, str):
            findings.append(_unreadable(paths[kind], certificates))
        else:
            files[kind] = certificates
    if findings or isinstance(key, str):
        return tuple(findings)
    return _together(key, _Found(MappingProxyType(files), MappingProxyType(paths)))


def with_chain(material: Material, chain: Sequence[x509.Certificate]) -> Material:
    """Return the material with another chain, the leaf's issuer first; self-signed ones are dropped."""
    return replace(material, chain=without_roots(chain))


def missing_issuer(material: Material) -> x509.Certificate | None:
    """Return the certificate whose caIssuers (RFC 5280 section 4.2.2.1) leads on to the next issuer.

    That is the leaf when its issuer is not in the chain, else the last intermediate. None when the
    leaf is self-signed. Whether anything is missing depends on the anchors, which the caller has:
    ask only when no path was found.
    """
    if issued(material.leaf, material.leaf):
        return None
    return material.chain[-1] if material.issuer is not None else material.leaf


def assemble(material: Material, anchor: x509.Certificate | None, suffix: str = "") -> dict[str, bytes]:
    """Return file name -> PEM of every file a server may want, all names always there.

    `privkey`, `cert`, `chain`, `fullchain` (leaf + chain), `issuer` (direct issuer: of the chain, or
    the anchor), `trusted` (chain + anchor), `bundle` (key + leaf + chain), each with `suffix` (such
    as `.rsa` for a second certificate of the lineage) and `.pem`. A file is empty when there is
    nothing to put in; after a passed gate and with its anchor only `chain` can be.
    """
    issuer = material.issuer
    if issuer is None and anchor is not None and issued(material.leaf, anchor):
        issuer = anchor
    trusted = material.chain if anchor is None or anchor in material.chain else (*material.chain, anchor)
    fullchain = to_pem(material.leaf, *material.chain)
    files = {
        "privkey": material.key_pem,
        "cert": to_pem(material.leaf),
        "chain": to_pem(*material.chain),
        "fullchain": fullchain,
        "issuer": b"" if issuer is None else to_pem(issuer),
        "trusted": to_pem(*trusted),
        "bundle": material.key_pem + fullchain,
    }
    return {f"{name}{suffix}.pem": content for name, content in files.items()}


def _labels(data: bytes) -> list[bytes]:
    return _BEGIN.findall(data)


def _shape_problem(data: bytes) -> str:
    # What is wrong with a file before any block of it is decoded; empty when nothing is.
    if not data.strip():
        return "is empty"
    if len(data) > _FILE_BYTES:
        return f"has {len(data)} bytes, more than {_FILE_BYTES}"
    if not _labels(data):
        return "is DER, not PEM" if data.startswith((b"\x30\x81", b"\x30\x82", b"\x30\x2e")) else "is not PEM"
    return ""


def _read_key(data: bytes) -> _Key | str:
    """Return the one private key of a file, or what is wrong with the file."""
    problem = _shape_problem(data)
    if problem:
        return problem
    markers = _labels(data)
    keys = [marker for marker in markers if marker.endswith(b"PRIVATE KEY")]
    if not keys:
        return f"holds no private key but a {markers[0].decode('ascii')}"
    if len(keys) > 1:
        return f"holds {len(keys)} private keys; which one belongs to the leaf must not be guessed"
    begin, end = (b"-----%s %s-----" % (word, keys[0]) for word in (b"BEGIN", b"END"))
    start = data.index(begin)
    stop = data.find(end, start)
    if stop < 0:
        return "holds a private key that is cut off"
    pem = data[start : stop + len(end)] + b"\n"
    try:
        public = serialization.load_pem_private_key(pem, password=None).public_key()
    except TypeError:
        return "holds an encrypted private key; a server that starts unattended needs it without a password"
    except REFUSALS:
        return "holds a private key that cannot be decoded"
    digest = public_key_digest(public)
    return (
        f"holds a private key of another type than {SERVER_KEY_NAMES}"
        if digest is None
        else _Key(pem, digest)
    )


def _read_certificates(data: bytes) -> tuple[x509.Certificate, ...] | str:
    """Return all certificates of a file in its order, at least one, or what is wrong with the file."""
    problem = _shape_problem(data)
    if problem:
        return problem
    markers = _labels(data)
    count = sum(marker in _CERTIFICATE_LABELS for marker in markers)
    if not count:
        return f"holds no certificate but a {markers[0].decode('ascii')}"
    if count > _FILE_CERTIFICATES:
        return f"holds {count} certificates, more than {_FILE_CERTIFICATES}"
    try:
        with quiet():
            certificates = tuple(x509.load_pem_x509_certificates(data))
    except REFUSALS as refusal:
        why = "that is not valid DER" if "asn1" in str(refusal) else "that is damaged or cut off"
        return f"holds a certificate {why}"
    return certificates if len(certificates) == count else "holds a certificate that is damaged or cut off"


def _together(key: _Key, found: _Found) -> Material | tuple[Finding, ...]:
    """Put key and certificates together, or tell the first thing that keeps them apart."""
    leaf, paths = found.leaf, found.paths
    if key_digest(leaf) is None:
        problem = f"holds a leaf whose key is of another type than {SERVER_KEY_NAMES}"
        return (_unreadable(paths[found.leaf_file], problem),)
    findings = (
        _key_differs(key, found)
        or _fullchain_begins_otherwise(found)
        or _order(found)
        or _fullchain_differs(found)
    )
    if findings:
        return findings
    origin = {**paths, "cert": paths[found.leaf_file], "chain": paths[found.chain_file]}
    return Material(key.pem, leaf, without_roots(found.chain), leaf_facts(leaf), MappingProxyType(origin))


def _key_differs(key: _Key, found: _Found) -> tuple[Finding, ...]:
    leaf, paths, file = found.leaf, found.paths, found.paths[found.leaf_file]
    leaf_digest = key_digest(leaf)
    if leaf_digest == key.spki_sha256:
        return ()
    evidence: dict[str, Json] = {"key_spki_sha256": key.spki_sha256, "leaf_spki_sha256": leaf_digest}
    message = f"the private key in {paths['privkey']} does not belong to the leaf {label(leaf)} in {file}"
    for kind, certificates in found.certificates.items():
        for place, certificate in enumerate(certificates, 1):
            if key_digest(certificate) != key.spki_sha256:
                continue
            where = f"certificate {place} of {paths[kind]}"
            evidence["key_belongs_to"] = where
            if paths[kind] == file:
                # The right leaf is in the right file, only not in front: the order is to mend, not the key.
                message = (
                    f"{file} must begin with the leaf, but the one that the private key belongs to is {where}"
                )
                return (find(Code.MATERIAL_CHAIN_ORDER, file, message, evidence=evidence),)
            message += f" but to {where}: were files swapped, or only some of them renewed?"
            return (find(Code.MATERIAL_KEY_MISMATCH, file, message, evidence=evidence),)
    return (find(Code.MATERIAL_KEY_MISMATCH, file, message, evidence=evidence),)


def _order(found: _Found) -> tuple[Finding, ...]:
    """Tell what keeps the chain from leading on from the leaf, each certificate issuing the one before."""
    leaf, chain, file = found.leaf, without_roots(found.chain), found.paths[found.chain_file]
    if all(issued(child, parent) for child, parent in pairwise((leaf, *chain))):
        return ()
    right = _longest(leaf, chain, _parents((leaf, *chain)))
    strays = [certificate for certificate in chain if certificate not in right]
    evidence: dict[str, Json] = {
        "file": file,
        "found": [label(certificate) for certificate in chain],
        "right_order": [label(certificate) for certificate in right],
    }
    if leaf in chain:
        message = f"{file} holds the leaf {label(leaf)} itself among the intermediates"
    elif len(set(chain)) < len(chain):
        twice = next(certificate for certificate in chain if chain.count(certificate) > 1)
        message = f"{file} holds the intermediate {label(twice)} more than once"
    elif strays:
        listed = "; ".join(label(certificate) for certificate in strays)
        message = f"{file} holds what is no part of the chain of the leaf {label(leaf)}: {listed}"
    else:
        order = "; then ".join(label(certificate) for certificate in right)
        message = f"{file} holds the intermediates in the wrong order; after the leaf must come {order}"
    misplaced = find(Code.MATERIAL_CHAIN_ORDER, file, message, evidence=evidence)
    if any(issued(leaf, candidate) for candidate in found.chain) or issued(leaf, leaf):
        return (misplaced,)
    return (issuer_missing(leaf, file, chain), misplaced)


def _parents(certificates: Sequence[x509.Certificate]) -> _Parents:
    return {
        child: [parent for parent in certificates if parent != child and issued(child, parent)]
        for child in certificates
    }


def _longest(
    child: x509.Certificate, rest: Sequence[x509.Certificate], parents: _Parents
) -> tuple[x509.Certificate, ...]:
    """Return the longest run of issuers that leads on from `child`; 10 certificates bear a full search."""
    best: tuple[x509.Certificate, ...] = ()
    for parent in parents[child]:
        if parent in rest:
            remaining = [certificate for certificate in rest if certificate != parent]
            best = max(best, (parent, *_longest(parent, remaining, parents)), key=len)
    return best


def _fullchain_begins_otherwise(found: _Found) -> tuple[Finding, ...]:
    fullchain, leaf, paths = found.certificates.get("fullchain", (found.leaf,)), found.leaf, found.paths
    if fullchain[0] == leaf:
        return ()
    message = f"{paths['fullchain']} begins with {label(fullchain[0])}, not with the leaf {label(leaf)}"
    place = f", which stands there at place {fullchain.index(leaf) + 1}" if leaf in fullchain else ""
    return (_disagree(found, f"{message} of {paths[found.leaf_file]}{place}"),)


def _fullchain_differs(found: _Found) -> tuple[Finding, ...]:
    # An ACME client writes leaf and chain into fullchain; anything else mixes two renewals.
    fullchain, paths = found.certificates.get("fullchain"), found.paths
    if fullchain is None or without_roots(fullchain[1:]) == without_roots(found.chain):
        return ()
    leaf_file, chain_file = paths[found.leaf_file], paths[found.chain_file]
    message = (
        f"{paths['fullchain']} is not the leaf of {leaf_file} followed by the intermediates of {chain_file}"
    )
    return (_disagree(found, message),)


def _disagree(found: _Found, message: str) -> Finding:
    file = found.paths["fullchain"]
    evidence: dict[str, Json] = {
        "file": file,
        "found": [label(certificate) for certificate in found.certificates["fullchain"]],
        "leaf": label(found.leaf),
        "chain": [label(certificate) for certificate in without_roots(found.chain)],
    }
    return find(Code.MATERIAL_CHAIN_ORDER, file, message, evidence=evidence)


def _unreadable(file: str, problem: str) -> Finding:
    evidence = {"file": file, "problem": problem}
    return find(Code.MATERIAL_UNREADABLE, file, f"{file} {problem}", evidence=evidence)


def issuer_missing(
    child: x509.Certificate,
    file: str,
    chain: Sequence[x509.Certificate],
    *,
    store: str = "",
    extra: Mapping[str, Json] = MappingProxyType({}),
) -> Finding:
    """Say that nobody in `chain` (of `file`) signed `child`, who is wanted, and where AIA has it.

    `store` is what is known of the anchors (" and no anchor of ..."), `extra` more evidence.
    """
    issuer = escape(dn(child, "issuer"))
    urls = tuple(map(escape, leaf_facts(child).ca_issuers))
    evidence: dict[str, Json] = {
        "file": file,
        "certificate": label(child),
        "issuer": issuer,
        "ca_issuers": urls,
        **extra,
    }
    if issued(child, child):
        message = f"{label(child)} is self-signed{store}"
        return find(Code.MATERIAL_CHAIN_INCOMPLETE, file, message, evidence=evidence)
    where = f"; it can be had from {urls[0]}" if urls else ""
    if any(same_name(child, candidate) for candidate in chain):
        message = (
            f"{file} holds {issuer}, but with another key than the one that signed {label(child)}{where}"
        )
    else:
        message = f"{issuer}, which issued {label(child)}, is no intermediate in {file}{store}{where}"
    return find(Code.MATERIAL_CHAIN_INCOMPLETE, file, message, evidence=evidence)
