"""The text format of Prometheus, read back by its own parser."""

from __future__ import annotations

import pytest
from looked import NOW, bare, endpoint, good, judged, leaf, read, unreached
from prometheus_client.parser import text_string_to_metric_families
from stapleguard.finding import Code, find
from stapleguard.ocsp import Acceptance
from stapleguard.report.metrics import COMMON, FAMILIES, MAX_LABELS, MAX_VALUE, exposition
from stapleguard.report.readings import Reading

pytestmark = pytest.mark.unit

Samples = dict[str, list[tuple[dict[str, str], float]]]


def samples(*readings: Reading) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(exposition(readings).decode()):
        assert family.type == "gauge"
        assert family.documentation == FAMILIES[family.name].about
        for one in family.samples:
            assert one.timestamp is None
            found.setdefault(family.name, []).append((dict(one.labels), one.value))
    return found


def value(found: Samples, name: str) -> float:
    [(_, number)] = found[f"stapleguard_{name}"]
    return number


def test_a_good_endpoint() -> None:
    found = samples(*read(good()))
    assert value(found, "probe_success") == 1
    assert value(found, "cert_not_after_timestamp_seconds") == leaf().not_after.timestamp()
    assert value(found, "ocsp_response_stapled") == 1
    assert value(found, "ocsp_response_acceptable") == 1
    assert value(found, "ocsp_response_status") == 0
    assert value(found, "ocsp_response_next_update_timestamp_seconds") - NOW.timestamp() == 3 * 86400
    labels, _ = found["stapleguard_cert_not_after_timestamp_seconds"][0]
    assert labels == {
        **dict(zip(COMMON, ("www.site.test", "443", "192.0.2.1", "www.site.test", "ecdsa"), strict=True)),
        "serial_no": "4660",
        "issuer_cn": "An Issuer, Inc.",
        "cn": "www.site.test",
        "dnsnames": ",www.site.test,site.test,",
    }
    assert found["stapleguard_verdict_info"][0][0]["cause"] == "none"
    assert "stapleguard_finding_info" not in found


def test_without_a_staple_no_status_is_claimed() -> None:
    """ssl_exporter says 0, which is good, where there is none (its issue 143)."""
    found = samples(*read(bare()))
    assert value(found, "probe_success") == 0
    assert value(found, "ocsp_response_stapled") == 0
    assert not [
        name for name in found if name.startswith("stapleguard_ocsp_response_") and "stapled" not in name
    ]
    assert found["stapleguard_finding_info"][0][0]["code"] == "staple.absent"


def test_a_bad_staple_keeps_what_it_claims_apart_from_what_it_is_worth() -> None:
    found = samples(*read(good(judgement=judged(Acceptance.REJECTED))))
    assert value(found, "ocsp_response_status") == 0
    assert value(found, "ocsp_response_acceptable") == 0
    assert "stapleguard_ocsp_response_status" not in samples(
        *read(good(judgement=judged(Acceptance.REJECTED, None)))
    )


def test_an_endpoint_that_was_not_reached_has_no_certificate() -> None:
    found = samples(*read(unreached()))
    assert value(found, "probe_success") == 0
    assert not [
        name for name in found if "cert" in name or "ocsp" in name or "tls" in name or "workers" in name
    ]


def test_a_series_stands_there_once() -> None:
    fault = find(Code.OCSP_EXPIRED, "one", "a")
    twice = [*read(bare(), more=(fault, find(Code.OCSP_EXPIRED, "two", "b"))), *read(good()), *read(good())]
    found = samples(*twice)
    for each in found.values():
        names = [frozenset(labels.items()) for labels, _ in each]
        assert len(names) == len(set(names))


def test_labels_of_the_inventory_come_on_top_and_are_bounded() -> None:
    labels = {f"l{number:02d}": "v" * 5000 for number in range(40)} | {"host": "forged", "code": "forged"}
    [(own, _)] = samples(*read(good(), labels=labels))["stapleguard_probe_success"]
    assert own["host"] == "www.site.test"
    assert len(own) == len(COMMON) + MAX_LABELS
    assert max(len(one) for one in own.values()) == MAX_VALUE


def test_hostile_text_stays_in_its_label() -> None:
    evil = leaf(subject='CN=a"\n} x 1\\\ud800')
    found = samples(*read(good(endpoint('h"\n{'), evil), labels={"env": 'p"\n# TYPE'}))
    labels, _ = found["stapleguard_cert_not_after_timestamp_seconds"][0]
    assert (labels["host"], labels["env"]) == ('h"\\x0a{', 'p"\\x0a# TYPE')
    assert exposition(read(good(endpoint('h"\n{'), evil))).decode().isascii()


def test_nothing_looked_at_is_an_empty_page() -> None:
    assert exposition(()) == b""
