"""Verified handshakes on loopback: ours beside a C loop on the same OpenSSL, and beside the peers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from bench import cloop, ours, programs, tools
from bench.figures import BenchError, Ratio, Report, Row, Sample, Samples, Variant, interleave, quotients, say
from bench.offer import offered_groups
from bench.options import Options
from bench.stapled import NAME, StapledSite
from bench.usage import cpu

PEERS = ("gcc", "openssl", "curl", "xargs", "go", "check_ssl_cert", "testssl")
_OTHERS = 200
_OURS = "stapleguard, chain, name and staple judged"
_COLD = f"stapleguard, {_OTHERS} certificates never seen before"
_SAME = "C loop, the same OpenSSL, the groups that stapleguard offers"
_DEFAULT = "C loop, the same OpenSSL, its own groups"
_SYSTEM = "C loop, the system's OpenSSL"
_S_CLIENT = "openssl s_client -status, one after the other"

_LOOP = "i=0; while [ $i -lt $1 ]; do {}; i=$((i+1)); done"
# $1 how many, $2 where, $3 the name, $4 the anchors, $5 the program
_S_CLIENT_ONE = '"$5" s_client -status -connect "$2" -servername "$3" -CAfile "$4" </dev/null'
_S_CLIENT_MANY = 'seq "$1" | xargs -P64 -I@ "$5" s_client -status -connect "$2" -servername "$3" -CAfile "$4"'
_CURL_ONE = (
    '"$5" -sS -o /dev/null --cert-status --cacert "$4" --connect-to "$3:443:$2" "https://$3/" && echo stapled'
)
_TESTSSL_ONE = '"$5" -S --quiet --color 0 --nodns=none --ip=127.0.0.1 --add-ca "$4" "$3:${2##*:}"'
_CHECK_SSL_CERT = ("--require-ocsp-stapling", "--ignore-ocsp", "--ignore-sct")
_STAPLED = "OCSP Response Status: successful"


def run(options: Options) -> Report:
    """Measure; what this machine has not is left out."""
    tools.install(PEERS)
    with (
        tempfile.TemporaryDirectory(prefix="stapleguard-bench-") as directory,
        StapledSite(Path(directory), others=_OTHERS) as site,
    ):
        groups = offered_groups(site.anchors)
        say(f"our handshakes offer {groups}")
        taken = interleave(
            [*_ours(site, options), *_floors(site, options, groups), *_peers(site, options)], options.rounds
        )
    report = Report("handshakes", "full TLS 1.3 handshakes on loopback, ECDSA P-256, staple from a file")
    for label, samples in taken.items():
        report.rows.append(Row(f"{label}: CPU", "us", [one.cpu_each * 1e6 for one in samples], 0))
        report.rows.append(Row(f"{label}: rate", "1/s", [1 / one.each for one in samples]))
    report.ratios += _ratios(taken)
    report.notes.append(f"our handshakes offer the groups {groups}")
    if cloop.bundled() is not None:
        report.notes += [f"{label}: {version}" for label, version in _versions()]
    return report


def _ratios(taken: Samples) -> Iterator[Ratio]:
    mine = taken[_OURS]
    for floor in (_SAME, _DEFAULT):
        if taken.get(floor):
            more = quotients([one.cpu_each for one in mine], [one.cpu_each for one in taken[floor]])
            yield Ratio(f"CPU per verified handshake / {floor}", "<=", 1.1, more)
    if taken.get(_S_CLIENT):
        rate = quotients([one.each for one in taken[_S_CLIENT]], [one.each for one in mine])
        yield Ratio("handshakes per second / s_client loop", ">=", 12, rate)


def _versions() -> Iterator[tuple[str, str]]:
    for label, table in (("the same OpenSSL", cloop.bundled()), ("the system's", cloop.system())):
        if table is not None:
            yield label, cloop.CLoop(table, None).version


def _ours(site: StapledSite, options: Options) -> list[Variant]:
    where = f"127.0.0.1:{site.port}"
    warm = ours.Ours(site.anchors, ours.endpoints_of([where] * options.many, NAME))
    return [
        Variant(_OURS, lambda: _verify(warm, options.many)),
        Variant(_COLD, lambda: _cold(site, where)),
    ]


def _cold(site: StapledSite, where: str) -> Sample:
    endpoints = [ours.endpoints_of([where], name)[0] for name in site.names[1:]]
    return _verify(ours.Ours(site.anchors, endpoints), len(endpoints))


def _verify(prober: ours.Ours, count: int) -> Sample:
    before, begun = cpu(), perf_counter()
    good = prober.verify()
    sample = Sample(perf_counter() - begun, count, cpu() - before)
    if good != count:
        raise BenchError(f"stapleguard found {good} of {count} good")
    return sample


def _floors(site: StapledSite, options: Options, groups: str) -> Iterator[Variant]:
    for label, table, wanted in (
        (_SAME, cloop.bundled(), groups),
        (_DEFAULT, cloop.bundled(), None),
        (_SYSTEM, cloop.system(), None),
    ):
        if table is not None:
            loop = cloop.CLoop(table, wanted)
            yield Variant(label, lambda loop=loop: loop.run(site.port, NAME, options.many))


def _peers(site: StapledSite, options: Options) -> Iterator[Variant]:
    where, root = f"127.0.0.1:{site.port}", str(site.anchors)
    openssl, curl, client = tools.find("openssl"), tools.find("curl"), tools.go_client()
    if openssl is not None:
        words = (where, NAME, root, openssl)
        loop = _LOOP.format(_S_CLIENT_ONE)
        yield Variant(_S_CLIENT, lambda: programs.shell(loop, words, options.few, _STAPLED))
        yield Variant(
            "openssl s_client -status, xargs -P64",
            lambda: programs.shell(_S_CLIENT_MANY, words, 4 * options.few, _STAPLED),
        )
    if curl is not None:
        words_curl, loop_curl = (where, NAME, root, curl), _LOOP.format(_CURL_ONE)
        yield Variant(
            "curl --cert-status, one after the other",
            lambda: programs.shell(loop_curl, words_curl, options.few, "stapled"),
        )
    if client is not None:
        for goroutines, cached in ((1, False), (16, False), (16, True)):
            job = programs.Job([where] * options.many, NAME, root, goroutines, cached)
            how = "verified once by bytes" if cached else "verified every time"
            yield Variant(
                f"Go crypto/tls, {goroutines} goroutines, {how}".replace("1 goroutines", "1 goroutine"),
                lambda job=job: programs.work([str(client)], job),
            )
    yield from _scanners(site, options)


def _scanners(site: StapledSite, options: Options) -> Iterator[Variant]:
    where, root = f"127.0.0.1:{site.port}", str(site.anchors)
    python, check, testssl = tools.sslyze_python(), tools.find("check_ssl_cert"), tools.find("testssl")
    if python is not None:
        job = programs.Job([where] * 16, NAME, root)
        argv = [str(python), str(tools.HERE / "sslyze_client.py")]
        yield Variant("sslyze API, certificate_info", lambda: programs.work(argv, job))
    if check is not None:
        words = [check, "-H", "127.0.0.1", "-p", str(site.port), "-n", NAME, "-r", root, *_CHECK_SSL_CERT]
        yield Variant("check_ssl_cert --require-ocsp-stapling", lambda: programs.command(words))
    if testssl is not None and not options.quick:
        words_t, mark = (where, NAME, root, testssl), "offered, not revoked"
        yield Variant(
            "testssl.sh -S",
            lambda: programs.shell(_TESTSSL_ONE, words_t, 1, mark),
            rounds=1,
        )
