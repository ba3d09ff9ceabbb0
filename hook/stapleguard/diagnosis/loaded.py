"""What the configuration of a server rules out, before anybody is asked for anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from stapleguard.diagnosis import remedies
from stapleguard.diagnosis.facts import Facts, Symptom
from stapleguard.diagnosis.naming import SICK, fetches, issuer_missing, named
from stapleguard.finding import Code, Finding, criticals
from stapleguard.model import Severity
from stapleguard.ocsp import Acceptance


def refused(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """Its own test refuses the configuration that is on disk."""
    server = facts.server
    if server is None or not server.load.refused:
        return
    for one in server.load.findings:
        if one.code in (Code.MATERIAL_KEY_MISMATCH, Code.MATERIAL_UNREADABLE, Code.SERVER_STAPLE_FILE_BAD):
            yield replace(one, severity=Severity.CRITICAL, remedy=remedies.test_refuses(server, one))
            break
    said = server.load.refused
    yield named(
        Code.SERVER_CONFIG_INVALID,
        server.config,
        f"{server.kind} refuses its configuration: {said}",
        [f"its own test says: {said}"],
        ["the test passes when it is repeated"],
    )


def stopped(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """It does not run."""
    server = facts.server
    if server is not None and not server.running:
        yield named(
            Code.SERVER_NOT_RUNNING,
            server.config,
            f"{server.kind} does not run",
            ["no master process of this configuration was found", f"handshakes: {facts.symptom.value}"],
            ["a process that listens there"],
        )


def block(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """What the server block itself rules out."""
    server = facts.server
    if server is None or server.block is None or facts.symptom not in SICK:
        return
    block = server.block
    if block.variable is not None:
        yield named(
            Code.SERVER_VARIABLE_CERTIFICATE,
            block.variable.where,
            f"the certificate path {block.variable.value} holds a variable: nginx cannot staple for it",
            [f"{block.variable.where}: ssl_certificate {block.variable.value}", "nginx logs nothing of this"],
            ["a fixed path in force for this name"],
            remedy=remedies.variable(block),
        )
        return
    if not block.on:
        where = block.stapling.where or block.where
        said = f"{where}: ssl_stapling off" if block.stapling.where else f"{where}: no ssl_stapling in force"
        yield named(
            Code.SERVER_STAPLING_DISABLED,
            where,
            f"stapling is off in the server block at {block.where}",
            [said, f"handshakes: {facts.symptom.value}"],
            ["`ssl_stapling on` in the block that answers this name"],
            remedy=remedies.stapling_off(server, block, facts),
        )
    url = block.responder.value or next(iter(facts.urls), "")
    if url and not url.startswith("http://") and fetches(facts):
        yield named(
            Code.SERVER_UNSUPPORTED,
            url,
            f"{server.kind} cannot ask a responder at {url}: it takes http:// only",
            [f"the responder's URL is {url}"],
            ["an http:// URL in the certificate or in ssl_stapling_responder"],
            remedy=remedies.https(block, url),
        )
    if not server.issuer_found and fetches(facts):
        yield issuer_missing(server, ["neither behind the leaf nor among the trusted certificates"])


def staple_file(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """The file that it staples is bad, or was not read yet."""
    server = facts.server
    if server is None or server.staple_file is None or server.block is None or not server.block.on:
        return
    file, where = server.staple_file, server.block.file.where
    judged = file.judgement
    bad = judged is None or judged.acceptance is Acceptance.REJECTED
    if bad:
        why = file.problem or "; ".join(one.message for one in criticals(judged.findings if judged else ()))
        yield named(
            Code.SERVER_STAPLE_FILE_BAD,
            file.path,
            f"the staple file {file.path} does not pass: {why}",
            [f"{where}: ssl_stapling_file {file.path}", why],
            ["an answer in that file that the judge accepts"],
            remedy=remedies.staple_file(server, file),
        )
    elif facts.symptom is Symptom.BAD and server.block.certificates > 1:
        yield named(
            Code.SERVER_STAPLE_FILE_BAD,
            file.path,
            f"one staple file, {file.path}, for {server.block.certificates} certificates: it is about one",
            [f"{where}: ssl_stapling_file {file.path}", "it passes the judge for one of the certificates"],
            ["a staple that passes with each kind of key"],
            remedy=remedies.staple_file(server, file),
        )
    elif facts.symptom is Symptom.BAD:
        yield named(
            Code.SERVER_RELOAD_NOT_TAKEN,
            file.path,
            f"{file.path} is good on disk, but {server.kind} still staples what it read before",
            ["the file passes the judge", "the staple of the handshake does not"],
            ["a reload after which the same staple is sent"],
            remedy=remedies.reload(server),
        )


def unloaded(facts: Facts, found: Sequence[Finding]) -> Iterator[Finding]:
    """Right on disk, wrong on the wire, and the disk is newer: nobody has reloaded."""
    server = facts.server
    if server is None or facts.symptom not in SICK or not server.load.changed_since or criticals(found):
        return
    if any(reply.code is not None for door in facts.doors for reply in door.replies[:1]):
        return
    yield named(
        Code.SERVER_RELOAD_NOT_TAKEN,
        server.config,
        f"{server.load.changed_since} is newer than the running {server.kind}: it was not reloaded",
        [f"{server.load.changed_since} changed after the workers were started", "on disk nothing is wrong"],
        ["the same symptom after a reload"],
        remedy=remedies.reload(server),
    )
