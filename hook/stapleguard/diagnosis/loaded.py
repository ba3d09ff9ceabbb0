"""What the configuration of a server rules out, before anybody is asked for anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from stapleguard.diagnosis import remedies
from stapleguard.diagnosis.facts import Facts, Symptom
from stapleguard.diagnosis.naming import fetches, issuer_missing, named, sick
from stapleguard.finding import Code, Finding, criticals
from stapleguard.model import Severity
from stapleguard.ocsp import Acceptance

_TELLING: Final = (
    Code.MATERIAL_KEY_MISMATCH,
    Code.MATERIAL_UNREADABLE,
    Code.SERVER_STAPLE_FILE_BAD,
    Code.SERVER_ISSUER_MISSING,
)
"""What a refusal may be about; then that it refuses follows from it."""
_NO_ISSUER: Final = Code.SERVER_ISSUER_MISSING


def refused(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """Its own test refuses the configuration that is on disk."""
    server = facts.server
    if server is None or not server.load.refused:
        return
    said = server.load.refused
    # nginx 1.31 says of its anchors what it says of a certificate; those are no material of ours.
    anchors = server.block.trusted.value if server.block else ""
    telling = [one for one in server.load.findings if one.code in _TELLING and one.subject != anchors]
    # HAProxy guesses: it says the same of a certificate that names no responder.
    told = next((one for one in telling if one.code is not _NO_ISSUER or not server.issuer_found), None)
    if told is not None:
        remedy = remedies.test_refuses(server, told)
        if told.code is Code.SERVER_ISSUER_MISSING:
            remedy = remedies.issuer(server)
        yield replace(told, severity=Severity.CRITICAL, remedy=remedy)
    file = server.staple_file
    by_file = file is not None and bool(file.problem) and file.path in said
    yield named(
        Code.SERVER_CONFIG_INVALID,
        server.config,
        f"{server.kind} refuses its configuration: {said}",
        [f"its own test says: {said}"],
        ["the test passes when it is repeated"],
        severity=Severity.WARNING if told or by_file else Severity.CRITICAL,
    )


def cache(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """It would not start again, though its own test is content."""
    server = facts.server
    block = server.block if server else None
    if server is None or block is None or not block.on or block.cache is None or block.cache.value:
        return
    heavy = sick(facts) or not server.running
    yield named(
        Code.SERVER_CACHE_MISSING,
        server.config,
        f"{server.manner.stapling} is on ({block.stapling.where}), but there is no SSLStaplingCache: "
        f"{server.kind} does not start with that",
        [f"{block.stapling.where}: {server.manner.stapling} on", "no SSLStaplingCache outside of every host"],
        ["an SSLStaplingCache in the main server's configuration"],
        severity=Severity.CRITICAL if heavy else Severity.WARNING,
        remedy=remedies.no_cache(server),
    )


def key(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """The key on disk is of another certificate, which its test does not say."""
    server = facts.server
    block = server.block if server else None
    if server is None or block is None or server.key_fits:
        return
    yield named(
        Code.MATERIAL_KEY_MISMATCH,
        block.certificate.value,
        f"{block.key.value} ({block.key.where}) is not the key of {block.certificate.value}: "
        f"{server.kind} does not start with that, and its test does not compare them",
        [f"{block.certificate.where}: {block.certificate.value}", f"{block.key.where}: {block.key.value}"],
        ["a key and a certificate of the same public key in these files"],
    )


def stopped(facts: Facts, found: Sequence[Finding]) -> Iterator[Finding]:
    """It does not run; where its configuration says why, that is the cause."""
    server = facts.server
    if server is not None and not server.running:
        yield named(
            Code.SERVER_NOT_RUNNING,
            server.config,
            f"{server.kind} does not run",
            ["no master process of this configuration was found", f"handshakes: {facts.symptom.value}"],
            ["a process that listens there"],
            severity=Severity.WARNING if criticals(found) else Severity.CRITICAL,
        )


def block(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """What the server block itself rules out."""
    server = facts.server
    if server is None or server.block is None or not sick(facts):
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
        where, name = block.stapling.where or block.where, server.manner.stapling
        said = f"{where}: {server.manner.off}" if block.stapling.where else f"{where}: no {name} in force"
        yield named(
            Code.SERVER_STAPLING_DISABLED,
            where,
            f"stapling is off in the {server.manner.block} at {block.where}",
            [said, f"handshakes: {facts.symptom.value}"],
            [f"{name} in force where this name is answered"],
            remedy=remedies.stapling_off(server, block, facts),
        )
    url = next(iter(block.asked(facts.urls)), "")
    if url and not url.lower().startswith("http://") and fetches(facts):
        yield named(
            Code.SERVER_UNSUPPORTED,
            url,
            f"{server.kind} cannot ask a responder at {url}: it takes http:// only",
            [f"the responder's URL is {url}"],
            [f"an http:// URL in the certificate or in {server.manner.responder}"],
            remedy=remedies.https(server, block, url),
        )
    if not server.issuer_found and fetches(facts):
        yield issuer_missing(server, ["neither behind the leaf nor among the trusted certificates"])


def staple_file(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """The file that it staples is bad, or was not read yet."""
    server = facts.server
    if server is None or server.staple_file is None or server.block is None or not server.block.on:
        return
    file, where, name = server.staple_file, server.block.file.where, server.manner.file
    judged = file.judgement
    said = judged.findings if judged else ()
    telling = [*criticals(said)]
    if facts.symptom is Symptom.ABSENT:
        telling += [one for one in said if one.code in server.manner.sets_aside]
    bad = judged is None or judged.acceptance is Acceptance.REJECTED or bool(telling)
    if bad or file.denied:
        why = file.problem or "; ".join(one.message for one in telling)
        by = "" if judged is None or criticals(said) or not telling else f" with {server.kind}"
        if not bad:
            why = f"{server.kind} runs as {file.denied}, who may not read it again"
        yield named(
            Code.SERVER_STAPLE_FILE_BAD,
            file.path,
            f"the staple file {file.path} does not pass{by}: {why}",
            [f"{where}: {name} {file.path}", why],
            ["an answer in that file that the judge accepts"],
            severity=Severity.CRITICAL if bad or sick(facts) else Severity.WARNING,
            remedy=remedies.staple_file(server, file),
        )
        for one in telling:
            yield named(
                one.code,
                file.path,
                f"{file.path}: {one.message}",
                [f"the judge on {file.path}: {one.message}"],
                ["an answer in that file that the judge accepts"],
                severity=Severity.WARNING,
            )
    elif facts.symptom is Symptom.BAD and server.block.certificates > 1:
        yield named(
            Code.SERVER_STAPLE_FILE_BAD,
            file.path,
            f"one staple file, {file.path}, for {server.block.certificates} certificates: it is about one",
            [f"{where}: {name} {file.path}", "it passes the judge for one of the certificates"],
            ["a staple that passes with each kind of key"],
            remedy=remedies.staple_file(server, file),
        )
    elif facts.symptom in (Symptom.BAD, Symptom.ABSENT):
        shown = "staples" if facts.symptom is Symptom.BAD else "has"
        yield named(
            Code.SERVER_RELOAD_NOT_TAKEN,
            file.path,
            f"{file.path} is good on disk, but {server.kind} still {shown} what it read before",
            ["the file passes the judge", f"handshakes: {facts.symptom.value}"],
            ["a reload after which the same is sent"],
            remedy=remedies.reload(server),
        )


def unloaded(facts: Facts, found: Sequence[Finding]) -> Iterator[Finding]:
    """Right on disk, wrong on the wire, and the disk is newer: nobody has reloaded."""
    server = facts.server
    if server is None or not sick(facts) or not server.load.changed_since or criticals(found):
        return
    if any(door.reply.code is not None for door in facts.doors):
        return
    yield named(
        Code.SERVER_RELOAD_NOT_TAKEN,
        server.config,
        f"{server.load.changed_since} is newer than the running {server.kind}: it was not reloaded",
        [f"{server.load.changed_since} changed after the workers were started", "on disk nothing is wrong"],
        ["the same symptom after a reload"],
        remedy=remedies.reload(server),
    )
