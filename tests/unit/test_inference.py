"""From facts to causes: one row a fault, the code that is named for it, and what is not blamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from stapleguard.diagnosis import cause_of
from stapleguard.diagnosis.facts import (
    Block,
    Door,
    Facts,
    Knock,
    Load,
    Lookup,
    Name,
    Place,
    Reply,
    Server,
    Setting,
    Signer,
    StapleFile,
    Symptom,
    Trust,
)
from stapleguard.diagnosis.inference import infer
from stapleguard.finding import Code, find
from stapleguard.model import CertStatus, Severity
from stapleguard.ocsp import Acceptance, Judgement
from stapleguard.servers import nginx_stapling

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = "http://ocsp.test/"
GOOD = Judgement(CertStatus.GOOD, Acceptance.ACCEPTED, (), NOW, NOW + timedelta(days=3), NOW, "ca", "bb")
OLD = replace(
    GOOD, acceptance=Acceptance.REJECTED, findings=(find(Code.OCSP_EXPIRED, "a", "it has expired"),)
)
WELL = Reply("GET", None, "a good answer", 0.01, 200, "", NOW, GOOD, Signer.ISSUER)
DOOR = Door(URL, "192.0.2.8", 80, (WELL, replace(WELL, method="POST")), ("", "192.0.2.53"))
NAME = Name("ocsp.test", Lookup("", ("192.0.2.8",)), (Lookup("192.0.2.53", ("192.0.2.8",)),))
BLOCK = Block(
    "/etc/nginx/site:3",
    Setting(("on",), "/etc/nginx/site:4"),
    Setting(("on",), "/etc/nginx/site:5"),
    resolver=Setting(("192.0.2.53",), "/etc/nginx/site:6"),
    trusted=Setting(("/etc/trusted.pem",), "/etc/nginx/site:7"),
    certificate=Setting(("/etc/fullchain.pem",), "/etc/nginx/site:8"),
)
SERVER = Server("nginx", "1.22.1", "/etc/nginx/nginx.conf", True, BLOCK, manner=nginx_stapling.MANNER)
ABSENT = find(Code.STAPLE_ABSENT, "a.test", "a.test sends no staple")
FACTS = Facts("a.test:443", Symptom.ABSENT, NOW, (URL,), (NAME,), (DOOR,), SERVER, (ABSENT,))
FINE = replace(FACTS, symptom=Symptom.GOOD, handshakes=())


def fails(code: Code, **changes: object) -> Facts:
    reply = Reply("GET", code, code.value, 0.1, **changes)  # type: ignore[arg-type]
    return replace(FACTS, doors=(replace(DOOR, replies=(reply,)),))


def resolver(code: Code) -> Facts:
    broken = Lookup("192.0.2.53", (), code, code.value)
    return replace(
        FACTS, names=(replace(NAME, configured=(broken,)),), doors=(replace(DOOR, named_by=("",)),)
    )


def server(**changes: object) -> Facts:
    return replace(FACTS, server=replace(SERVER, **changes))  # type: ignore[arg-type]


def block(**changes: object) -> Facts:
    if "file" in changes:
        changes["fetches"] = False
    return server(block=replace(BLOCK, **changes))  # type: ignore[arg-type]


def log(code: Code, line: str = "") -> Facts:
    return server(log=(find(code, "/etc/fullchain.pem", "it said so", evidence={"line": line}),))


def file(judgement: Judgement | None, symptom: Symptom, problem: str = "") -> Facts:
    named = replace(BLOCK, file=Setting(("/etc/ocsp.der",), "/etc/nginx/site:9"))
    return replace(
        FACTS,
        symptom=symptom,
        handshakes=(),
        server=replace(SERVER, block=named, staple_file=StapleFile("/etc/ocsp.der", problem, judgement)),
    )


def file_for_two() -> Facts:
    facts = file(GOOD, Symptom.BAD)
    assert facts.server is not None
    assert facts.server.block is not None
    return replace(facts, server=replace(facts.server, block=replace(facts.server.block, certificates=2)))


NOWHERE = replace(NAME, system=Lookup("", (), Code.DNS_NAME_NOT_FOUND, "NXDOMAIN"))
UNKNOWN = replace(NOWHERE, configured=(Lookup("192.0.2.53", (), Code.DNS_NAME_NOT_FOUND, "NXDOMAIN"),))
PLACE = Place("uid 33", (Knock("192.0.2.8:80", Code.NET_BLOCKED, "no answer to SYN"),))
BAD_ADDRESS = Door(URL, "192.0.2.9", 80, (Reply("GET", Code.NET_REFUSED, "refused", 0.1),), ("192.0.2.53",))

ROWS: list[tuple[str, Facts, Code | None]] = [
    ("nothing wrong", FINE, None),
    ("off", block(stapling=Setting(("off",), "x:1")), Code.SERVER_STAPLING_DISABLED),
    ("variable", block(variable=Setting(("/a/$b",), "x:1")), Code.SERVER_VARIABLE_CERTIFICATE),
    ("https", replace(FACTS, urls=("https://o.test/",), doors=()), Code.SERVER_UNSUPPORTED),
    ("issuer", server(issuer_found=False, issuer_sent=False), Code.SERVER_ISSUER_MISSING),
    ("issuer not sent", server(issuer_sent=False), Code.SERVER_ISSUER_MISSING),
    ("stopped", replace(server(running=False), symptom=Symptom.UNSEEN), Code.SERVER_NOT_RUNNING),
    ("refused", server(load=Load((), "unknown directive")), Code.SERVER_CONFIG_INVALID),
    ("not loaded", server(load=Load((), "", "/etc/nginx/site")), Code.SERVER_RELOAD_NOT_TAKEN),
    ("file expired", file(OLD, Symptom.BAD), Code.SERVER_STAPLE_FILE_BAD),
    ("file unreadable", file(None, Symptom.GOOD, "no DER"), Code.SERVER_STAPLE_FILE_BAD),
    ("file renewed", file(GOOD, Symptom.BAD), Code.SERVER_RELOAD_NOT_TAKEN),
    ("file well", file(GOOD, Symptom.GOOD), None),
    ("resolver silent", resolver(Code.DNS_TIMEOUT), Code.SERVER_RESOLVER_BROKEN),
    ("resolver NXDOMAIN", resolver(Code.DNS_NAME_NOT_FOUND), Code.SERVER_RESOLVER_BROKEN),
    ("unknown everywhere", replace(FACTS, names=(UNKNOWN,), doors=()), Code.DNS_NAME_NOT_FOUND),
    ("at load", replace(FACTS, names=(NOWHERE,)), Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD),
    (
        "wrong address",
        replace(FACTS, doors=(replace(DOOR, named_by=("",)), BAD_ADDRESS)),
        Code.SERVER_RESOLVER_BROKEN,
    ),
    *((one.value, fails(one), one) for one in Code if one.value.startswith(("net.", "responder.", "ocsp."))),
    ("one file for two", file_for_two(), Code.SERVER_STAPLE_FILE_BAD),
    (
        "slow",
        replace(FACTS, doors=(replace(DOOR, replies=(replace(WELL, seconds=4.0),)),)),
        Code.RESPONDER_SLOW,
    ),
    ("user", server(place=PLACE), Code.SERVER_BLOCKED_ONLY),
    (
        "denied",
        log(Code.NET_BLOCKED, "connect() failed (1: Operation not permitted)"),
        Code.SERVER_BLOCKED_ONLY,
    ),
    ("was refused", log(Code.NET_REFUSED), Code.NET_REFUSED),
    ("was not resolved", log(Code.DNS_TIMEOUT), Code.SERVER_RESOLVER_BROKEN),
    (
        "said at load",
        log(Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD),
        Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD,
    ),
    ("moved", block(resolver=Setting()), Code.SERVER_RESOLVER_MISSING),
    (
        "clock",
        replace(fails(Code.OCSP_NOT_YET_VALID), dates=(("o", NOW + timedelta(hours=1)),)),
        Code.HOST_CLOCK_WRONG,
    ),
    ("their clock", replace(fails(Code.OCSP_NOT_YET_VALID), dates=(("o", NOW),)), Code.OCSP_NOT_YET_VALID),
    ("absent, nothing known", replace(FACTS, server=None), Code.STAPLE_ABSENT),
]


@pytest.mark.parametrize(("facts", "cause"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_one_fault_has_one_cause(facts: Facts, cause: Code | None) -> None:
    found = infer(facts)
    assert cause_of([one for one in found if one.critical or one.code is Code.STAPLE_ABSENT]) is cause or (
        cause is Code.RESPONDER_FORBIDDEN_ADDRESS and cause in {one.code for one in found}
    )
    blamed = {one.code for one in found if one.critical} - {cause, Code.OCSP_NOT_YET_VALID}
    assert blamed == set()


def trust(signer: Signer, known: Trust, verify: str) -> Facts:
    facts = block(verify=Setting((verify,), "x:1"))
    assert facts.server is not None
    reply = replace(WELL, signer=signer)
    return replace(facts, server=replace(facts.server, trust=known), doors=(replace(DOOR, replies=(reply,)),))


@pytest.mark.parametrize(
    ("signer", "known", "verify", "named"),
    [
        (Signer.DELEGATE, Trust.NO_ROOT, "on", True),
        (Signer.DELEGATE, Trust.NO_ISSUER, "on", True),
        (Signer.DELEGATE, Trust.COMPLETE, "on", False),
        (Signer.DELEGATE, Trust.NO_ROOT, "off", False),
        (Signer.ISSUER, Trust.NO_ROOT, "on", False),
        (Signer.ENCLOSED, Trust.NO_ISSUER, "on", False),
    ],
)
def test_trust_is_missing_only_for_a_delegate_that_is_verified(
    signer: Signer, known: Trust, verify: str, named: bool
) -> None:
    codes = {one.code for one in infer(trust(signer, known, verify))}
    assert (Code.SERVER_TRUST_MISSING in codes) is named


PAIRS: list[tuple[Callable[[], Facts], set[Code]]] = [
    (
        lambda: replace(resolver(Code.DNS_TIMEOUT), doors=fails(Code.NET_BLOCKED).doors),
        {Code.SERVER_RESOLVER_BROKEN, Code.NET_BLOCKED},
    ),
    (
        lambda: replace(block(stapling=Setting()), doors=fails(Code.OCSP_TRY_LATER).doors),
        {Code.SERVER_STAPLING_DISABLED, Code.OCSP_TRY_LATER},
    ),
    (
        lambda: replace(server(issuer_found=False), doors=fails(Code.RESPONDER_HTTP_ERROR).doors),
        {Code.SERVER_ISSUER_MISSING, Code.RESPONDER_HTTP_ERROR},
    ),
]


@pytest.mark.parametrize(("facts", "named"), PAIRS)
def test_two_faults_are_two_findings(facts: Callable[[], Facts], named: set[Code]) -> None:
    assert {one.code for one in infer(facts()) if one.critical} == named


@pytest.mark.parametrize("code", [Code.NET_BLOCKED, Code.RESPONDER_SLOW, Code.OCSP_EXPIRED])
def test_what_does_no_harm_is_no_more_than_news(code: Code) -> None:
    facts = replace(fails(code), symptom=Symptom.GOOD, handshakes=())
    assert {one.severity for one in infer(facts)} == {Severity.INFO}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_finding_says_what_supports_and_what_would_refute_it(
    row: tuple[str, Facts, Code | None],
) -> None:
    for one in infer(row[1]):
        if one not in row[1].handshakes:
            assert one.evidence["supports"]
            assert one.evidence["would_refute"]
            assert one.remedy


def test_a_remedy_has_this_hosts_values() -> None:
    broken = next(one for one in infer(resolver(Code.DNS_TIMEOUT)) if one.critical)
    assert "dig +time=2 +tries=1 ocsp.test @192.0.2.53 -p 53" in broken.remedy
    assert "/etc/nginx/site:6" in broken.remedy
    blocked = next(one for one in infer(fails(Code.NET_BLOCKED)) if one.critical)
    assert "ip daddr 192.0.2.8 tcp dport 80 accept" in blocked.remedy
    off = next(one for one in infer(block(stapling=Setting(("off",), "/etc/nginx/site:4"))) if one.critical)
    assert "At /etc/nginx/site:4 write `ssl_stapling on;`" in off.remedy
