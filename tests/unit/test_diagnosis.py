"""From sightings to decisions: settled or not, the cause, whether going back helps, the verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from stapleguard.diagnosis import (
    ASSUMED_WORKERS,
    BREAKING,
    MISSING,
    NEAR_EXPIRY,
    Decision,
    Method,
    Need,
    Patience,
    Previous,
    Result,
    Served,
    Sighting,
    Strand,
    Undo,
    cause_of,
    confidence_of,
    handshakes_needed,
    may_pass,
    settle,
    strand_findings,
    undo,
    unique,
    verdict_of,
)
from stapleguard.finding import CATALOGUE, Code, Finding, find
from stapleguard.model import (
    Ask,
    CertStatus,
    Endpoint,
    HandshakeFault,
    KeyType,
    LeafFacts,
    Observation,
    Severity,
    Verdict,
)
from stapleguard.ocsp import Acceptance, Judgement

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WHERE = Endpoint("a.test", 443, "a.test", "192.0.2.1")
LEAF = LeafFacts(
    "aa",
    1,
    "CN=a.test",
    "CN=ca",
    ("a.test",),
    NOW,
    NOW + timedelta(days=9),
    KeyType.RSA,
    ("http://o.test",),
    (),
    True,
)
GOOD = Judgement(CertStatus.GOOD, Acceptance.ACCEPTED, (), NOW, NOW + timedelta(days=3), NOW, "ca", "bb")
BAD = replace(
    GOOD, acceptance=Acceptance.REJECTED, findings=(find(Code.OCSP_EXPIRED, "a", "it has expired"),)
)


def sighting(
    *,
    staple: Judgement | None = GOOD,
    served: Served = Served.EXPECTED,
    worker: int | None = None,
    fault: str = "",
) -> Sighting:
    if fault:
        return Sighting(Observation(Ask(WHERE), NOW, 0.1, fault=HandshakeFault(fault)), Served.NOTHING)
    der = None if staple is None else b"DER"
    return Sighting(Observation(Ask(WHERE), NOW, 0.1, "TLSv1.3", (b"c",), der, worker), served, LEAF, staple)


def strand(
    *seen: Sighting, workers: set[int] | None = None, need: Need = Need.STAPLE, must: bool = False
) -> Strand:
    return Strand(WHERE, None, need, must, seen, None if workers is None else frozenset(workers))


def known(code: Code, severity: Severity | None = None) -> Finding:
    return find(code, "subject", "message", severity=severity)


def codes(one: Strand) -> list[Code]:
    return [found.code for found in strand_findings(one)]


FINE, BARE = sighting(), sighting(staple=None)
FAULTY = sighting(fault="reset")
NEEDED = handshakes_needed(ASSUMED_WORKERS, 0.99)


def exact_miss(run: int, workers: int) -> float:
    """The chance that `run` handshakes leave out some worker, by counting every sequence."""
    return sum(len(set(one)) < workers for one in product(range(workers), repeat=run)) / workers**run


@pytest.mark.parametrize(("run", "workers"), [(1, 2), (5, 2), (9, 2), (4, 3), (8, 3), (8, 4)])
def test_confidence_never_promises_more_than_counting_does(run: int, workers: int) -> None:
    assert confidence_of(run, workers) <= 1 - exact_miss(run, workers) + 1e-12


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("workers", [1, 2, 4, 64])
def test_the_handshakes_needed_are_enough_and_not_one_too_many(workers: int, confidence: float) -> None:
    needed = handshakes_needed(workers, confidence)
    assert confidence_of(needed, workers) >= confidence
    assert needed == 1 or confidence_of(needed - 1, workers) < confidence


def test_confidence_at_its_ends() -> None:
    assert [confidence_of(0, workers) for workers in (0, 1, 4)] == [0.0, 0.0, 0.0]
    assert (confidence_of(1, 1), confidence_of(1, 4), NEEDED) == (1.0, 0.0, 21)


# settled


def test_statistically_settled_by_a_long_enough_run_of_good_ones() -> None:
    assert strand(*[FINE] * NEEDED).settled
    assert not strand(*[FINE] * (NEEDED - 1)).settled
    assert strand(BARE, FAULTY, *[FINE] * NEEDED).settled
    assert not strand().settled


@pytest.mark.parametrize("spoiler", [BARE, FAULTY, sighting(staple=BAD), sighting(served=Served.OTHER)])
def test_one_spoiler_begins_the_run_anew(spoiler: Sighting) -> None:
    assert not strand(*[FINE] * NEEDED, spoiler).settled
    assert not strand(*[FINE] * (NEEDED - 1), spoiler, FINE).settled
    assert strand(*[FINE] * 3, spoiler, FINE).run == 1


def test_a_critical_finding_is_not_good_and_a_warning_is() -> None:
    for severity, good in ((Severity.CRITICAL, False), (Severity.WARNING, True)):
        seen = replace(FINE, findings=(known(Code.SERVED_NOT_TRUSTED, severity),))
        assert strand(*[seen] * NEEDED).settled is good


def test_exactly_settled_when_every_worker_was_seen_good_at_last() -> None:
    one, two, bare = sighting(worker=1), sighting(worker=2), sighting(worker=2, staple=None)
    assert strand(one, two, workers={1, 2}).settled
    assert not strand(*[one] * NEEDED, workers={1, 2}).settled
    assert not strand(two, bare, one, workers={1, 2}).settled
    assert strand(bare, two, one, workers={1, 2}).settled


def test_a_worker_that_is_gone_counts_no_more() -> None:
    old = sighting(worker=9, staple=None)
    assert strand(old, sighting(worker=1), workers={1}).settled
    assert not strand(old, sighting(worker=1), workers={1, 9}).settled


def test_without_a_responder_a_staple_is_what_spoils() -> None:
    assert strand(*[BARE] * NEEDED, need=Need.NOT_APPLICABLE).settled
    left_over = strand(*[FINE] * NEEDED, need=Need.NOT_APPLICABLE)
    assert not left_over.settled
    assert codes(left_over) == [Code.STAPLE_LEFT_OVER]


def test_coverage_says_how_it_knows() -> None:
    exact = strand(sighting(worker=1), sighting(worker=2, staple=None), workers={1, 2, 3}).coverage
    assert (exact.seen, exact.stapled, exact.total, exact.method) == (2, 1, 3, Method.EXACT)
    guess = strand(*[FINE] * NEEDED).coverage
    assert (guess.total, guess.method) == (None, Method.STATISTICAL)
    assert 0.99 <= guess.confidence < 1


@pytest.mark.parametrize(
    ("elapsed", "idle", "decision"),
    [(0, 0, Decision.WAIT), (59.9, 9.9, Decision.WAIT), (60, 0, Decision.GIVE_UP), (0, 10, Decision.GIVE_UP)],
)
def test_the_poll_waits_until_a_limit(elapsed: float, idle: float, decision: Decision) -> None:
    patience = Patience(elapsed, idle, 60, 10)
    done, open_ = strand(*[FINE] * NEEDED), strand(BARE)
    assert settle([done, open_], patience) is decision
    assert settle([], patience) is decision
    assert settle([done, done], patience) is Decision.SETTLED


# findings


@pytest.mark.parametrize("fault", HandshakeFault)
def test_every_handshake_fault_has_a_code(fault: HandshakeFault) -> None:
    (found,) = strand_findings(strand(sighting(fault=fault.value)))
    family = "dns." if fault is HandshakeFault.NAME else "served."
    assert found.code.value.startswith(family)
    assert found.evidence["fault"] == fault.value


def test_what_is_wrong_on_a_strand_is_named() -> None:
    assert codes(strand()) == [Code.SERVED_UNREACHABLE]
    assert codes(strand(FINE)) == []
    assert codes(strand(FINE, FAULTY)) == []
    assert codes(strand(FINE, sighting(served=Served.OTHER))) == [Code.SERVED_OLD_CERTIFICATE]
    assert codes(strand(BARE)) == [Code.STAPLE_ABSENT]
    assert codes(strand(BARE, must=True)) == [Code.STAPLE_MUST_STAPLE_UNMET]
    assert codes(strand(sighting(staple=BAD))) == [Code.SERVER_SERVES_BAD_STAPLE, Code.OCSP_EXPIRED]
    some = strand(sighting(worker=1), sighting(worker=2, staple=None), workers={1, 2}, must=True)
    assert codes(some) == [Code.SERVER_WORKER_UNSTAPLED, Code.STAPLE_MUST_STAPLE_UNMET]


def test_repetitions_are_dropped_in_order() -> None:
    one, two = known(Code.NET_RESET), known(Code.DNS_TIMEOUT)
    assert unique([one, two, known(Code.NET_RESET)]) == (one, two)


# the cause


@pytest.mark.parametrize(
    "chain",
    [
        (Code.HOST_DISK_FULL, Code.MATERIAL_EXPIRED),
        (Code.MATERIAL_KEY_MISMATCH, Code.SERVER_CONFIG_INVALID),
        (Code.SERVER_CONFIG_INVALID, Code.SERVED_OLD_CERTIFICATE),
        (Code.OCSP_REVOKED, Code.NET_REFUSED, Code.SERVER_SERVES_BAD_STAPLE),
        (Code.DNS_NAME_NOT_FOUND, Code.NET_BLOCKED, Code.STAPLE_MUST_STAPLE_UNMET),
        (Code.OCSP_EXPIRED, Code.SERVER_SERVES_BAD_STAPLE, Code.STAPLE_MUST_STAPLE_UNMET),
        (Code.SERVER_RESOLVER_MISSING, Code.SERVER_WORKER_UNSTAPLED, Code.STAPLE_ABSENT),
        (Code.SERVED_UNREACHABLE, Code.STAPLE_MUST_STAPLE_UNMET),
    ],
)
def test_the_cause_lies_nearest_the_beginning_in_whatever_order(chain: tuple[Code, ...]) -> None:
    findings = [known(code, Severity.CRITICAL) for code in chain]
    assert cause_of(findings) is chain[0]
    assert cause_of(reversed(findings)) is chain[0]


def test_a_critical_finding_is_the_cause_before_a_warning_and_an_info_never() -> None:
    early = Code.HOST_CLOCK_WRONG
    late = known(Code.STAPLE_MUST_STAPLE_UNMET, Severity.CRITICAL)
    assert cause_of([known(early, Severity.WARNING), late]) is late.code
    assert cause_of([known(early, Severity.CRITICAL), late]) is early
    assert cause_of([known(early, Severity.INFO)]) is None
    assert cause_of([]) is None


@pytest.mark.parametrize("code", Code)
def test_every_code_can_be_a_cause(code: Code) -> None:
    assert cause_of([known(code, Severity.WARNING)]) is code


def test_what_may_pass() -> None:
    passing = [
        Code.DNS_TIMEOUT,
        Code.NET_REFUSED,
        Code.RESPONDER_SLOW,
        Code.OCSP_UNAUTHORIZED,
        Code.OCSP_TRY_LATER,
    ]
    staying = [
        None,
        Code.RESPONDER_FORBIDDEN_ADDRESS,
        Code.OCSP_REVOKED,
        Code.OCSP_EXPIRED,
        Code.SERVER_CONFIG_INVALID,
    ]
    assert all(map(may_pass, passing))
    assert not any(map(may_pass, staying))


# going back

FAULTS_OF_RESPONDER = [known(Code.STAPLE_MUST_STAPLE_UNMET), known(Code.NET_REFUSED, Severity.CRITICAL)]
OLD = Previous(LEAF, served_before=True)
PLAIN = replace(OLD, leaf=replace(LEAF, must_staple=False))
FILED = replace(OLD, staple_until=NOW + timedelta(seconds=1))


def life(left: timedelta) -> Previous:
    return replace(PLAIN, leaf=replace(LEAF, must_staple=False, not_after=NOW + left))


@pytest.mark.parametrize(
    ("findings", "previous", "answer"),
    [
        ([], OLD, Undo.NOT_WANTED),
        ([known(Code.STAPLE_ABSENT)], OLD, Undo.NOT_WANTED),
        ([known(Code.SERVED_UNREACHABLE, Severity.INFO)], OLD, Undo.NOT_WANTED),
        ([known(Code.SERVED_TLS_FAILURE)], None, Undo.NO_PREVIOUS),
        ([known(Code.SERVED_TLS_FAILURE)], OLD, Undo.HELPS),
        ([known(Code.SERVED_TLS_FAILURE)], life(NEAR_EXPIRY), Undo.HELPS),
        ([known(Code.SERVED_TLS_FAILURE)], life(NEAR_EXPIRY - timedelta(seconds=1)), Undo.EXPIRING),
        ([known(Code.SERVED_TLS_FAILURE)], life(timedelta(days=-1)), Undo.EXPIRING),
        (
            [known(Code.SERVED_TLS_FAILURE)],
            replace(OLD, faults=(known(Code.MATERIAL_KEY_MISMATCH),)),
            Undo.UNFIT,
        ),
        (
            [known(Code.SERVED_TLS_FAILURE)],
            replace(OLD, faults=(known(Code.STAPLE_NEAR_EXPIRY, Severity.WARNING),)),
            Undo.HELPS,
        ),
        (FAULTS_OF_RESPONDER, OLD, Undo.SHARED),
        (FAULTS_OF_RESPONDER, FILED, Undo.HELPS),
        (FAULTS_OF_RESPONDER, replace(OLD, staple_until=NOW), Undo.SHARED),
        (FAULTS_OF_RESPONDER, PLAIN, Undo.HELPS),
        (FAULTS_OF_RESPONDER, replace(OLD, leaf=replace(LEAF, ocsp_urls=())), Undo.HELPS),
        ([known(Code.STAPLE_MUST_STAPLE_UNMET), known(Code.OCSP_REVOKED)], OLD, Undo.HELPS),
    ],
)
def test_whether_going_back_helps(findings: list[Finding], previous: Previous | None, answer: Undo) -> None:
    assert undo(findings, previous, wanted=BREAKING, now=NOW) is answer


def test_policy_may_go_back_for_a_missing_staple() -> None:
    findings = [known(Code.STAPLE_ABSENT)]
    assert undo(findings, PLAIN, wanted=BREAKING | MISSING, now=NOW) is Undo.HELPS
    assert undo(findings, PLAIN, wanted=BREAKING, now=NOW) is Undo.NOT_WANTED


def test_what_breaks_clients_is_critical_in_the_catalogue() -> None:
    assert {code for code in BREAKING if CATALOGUE[code].severity is not Severity.CRITICAL} == set()
    assert not BREAKING & MISSING


# the verdict


def test_the_verdict() -> None:
    fine, unasked = strand(FINE), strand(BARE, need=Need.NOT_APPLICABLE)
    unseen = strand(FAULTY)
    assert verdict_of([], [fine]) is Verdict.VERIFIED
    assert verdict_of([], [fine, unasked]) is Verdict.VERIFIED
    assert verdict_of([], [unasked]) is Verdict.NOT_APPLICABLE
    assert verdict_of([], []) is Verdict.INCONCLUSIVE
    assert verdict_of(strand_findings(unseen), [unseen]) is Verdict.INCONCLUSIVE
    assert verdict_of(strand_findings(unseen), [fine, unseen]) is Verdict.DEGRADED
    assert verdict_of([known(Code.STAPLE_ABSENT, Severity.WARNING)], [fine]) is Verdict.DEGRADED
    assert verdict_of([known(Code.STAPLE_NEAR_EXPIRY, Severity.WARNING)], [fine]) is Verdict.VERIFIED


@pytest.mark.parametrize("verdict", Verdict)
def test_the_status_is_the_verdicts_unless_given(verdict: Verdict) -> None:
    assert Result("check", verdict).status == verdict.exit_status
    assert Result("check", verdict, exit_status=75).status == 75


def test_what_waiting_cannot_mend_is_not_waited_for() -> None:
    patience = Patience(0.0, 0.0, 60.0, 10.0)
    wrong = replace(FINE, findings=(known(Code.SERVED_NOT_TRUSTED),))
    assert settle([strand(wrong)], patience) is Decision.GIVE_UP
    assert settle([strand(wrong), strand(*[FINE] * NEEDED)], patience) is Decision.GIVE_UP
    # A staple may still come, another leaf may still go, a worker may still be met, and a warning is no end.
    assert settle([strand(wrong), strand(BARE)], patience) is Decision.WAIT
    assert settle([strand(replace(wrong, served=Served.OTHER))], patience) is Decision.WAIT
    assert settle([strand(sighting(worker=1), workers={1, 2})], patience) is Decision.WAIT
    met = [replace(sighting(worker=worker), findings=wrong.findings) for worker in (1, 2)]
    assert settle([strand(met[0], workers={1, 2})], patience) is Decision.WAIT
    assert settle([strand(*met, workers={1, 2})], patience) is Decision.GIVE_UP
    mild = replace(BARE, findings=(known(Code.SERVED_NOT_TRUSTED, Severity.WARNING),))
    assert settle([strand(mild)], patience) is Decision.WAIT
