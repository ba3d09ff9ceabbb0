"""What is in force for stapling at one `bind` line of HAProxy and where it stands, and what HAProxy says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography import x509

from stapleguard import host, material
from stapleguard.diagnosis.facts import Block, Setting, Unseen
from stapleguard.diagnosis.manner import Manner, Resolving
from stapleguard.finding import Code
from stapleguard.model import Endpoint
from stapleguard.servers import haproxy, haproxy_config
from stapleguard.servers import heard as hearing
from stapleguard.servers.haproxy_config import Bound, Entry
from stapleguard.servers.words import Heard, Instance

MANNER: Final = Manner(
    resolving=Resolving.OWN,
    stapling="FILE.ocsp or `ocsp-update on`",
    off="ocsp-update off, and no FILE.ocsp",
    file="FILE.ocsp",
    block="bind line",
    unit="haproxy",
    again="`haproxy -c -f haproxy.cfg && systemctl reload haproxy`: it reads files at a reload only.",
    again_fetching="`update ssl ocsp-response {certificate}` on its stats socket: by itself HAProxy asks "
    "again after minutes (tune.ssl.ocsp-update.mindelay, 300 s), and later each time.",
    reloads="haproxy -c -f haproxy.cfg && systemctl reload haproxy",
    test="haproxy -c -f {config}",
    turn_on="Write a judged answer (DER) to {certificate}.ocsp and renew it (stapleguard does, where the "
    "bind line names its crt-list); or from HAProxy 2.8 on give {certificate} a crt-list line with "
    "`[ocsp-update on]`: 2.6 cannot fetch.",
    turn_at="At {where} write `[ocsp-update on]`.",
    issuer="Or write the issuer alone to {certificate}.issuer.",
    staple_file="write a fresh answer (DER) to {path} by a rename, or remove it; without a reload: "
    "`set ssl ocsp-response <<` and the answer in base64 on the stats socket.",
    sets_aside=frozenset({Code.OCSP_CERTID_UNMATCHED, Code.OCSP_NO_NEXT_UPDATE}),
    read="A file that does not fit is left aside with a warning.",
    resolver="HAProxy asks the `nameserver` lines of `resolvers default`, or those of /etc/resolv.conf, and "
    "never /etc/hosts: at {where} name one that answers in the place of {bad}.",
    passes_on="HAProxy checks neither the signature of a file nor whether an answer says revoked: take "
    "FILE.ocsp, or `ocsp-update on`, away from the certificate ({where}) until the answer is right.",
    by_hand="The check of `ocsp-update` takes the issuer's own signature only: turn it off for this "
    "certificate and write the answer to FILE.ocsp, which is not checked so (stapleguard renews it: "
    '`prime = "file"`).',
    proxy="At {where} mend `ocsp-update.httpproxy`, or remove the line.",
)

_SECONDS: Final = 2.0
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_OF_A_FILE: Final = re.compile(r"[^\s'\"|]+\.(?:pem|crt|cer)[^\s'\"|]*")


def block_for(instance: Instance, endpoint: Endpoint, leaf: x509.Certificate | None) -> Block | None:
    """Find the certificate that is presented for a server name at an address, and what is in force for it.

    The one that was seen; else the one whose list entry, or whose own names, have the name; else the first.
    """
    configs = haproxy.configs(instance)
    found = haproxy_config.bound(configs, endpoint.address, endpoint.port)
    entry = _chosen(found, endpoint.server_name, leaf) if found is not None else None
    return _block(instance, entry) if entry is not None else None


def _chosen(found: Bound, name: str, leaf: x509.Certificate | None) -> Entry | None:
    held = [(one, _first(one.path)) for one in found.entries]
    for one, certificate in held:
        if leaf is not None and certificate == leaf:
            return one
    wanted = name.lower().rstrip(".")
    for one, certificate in held:
        names = one.names or (material.leaf_facts(certificate).names if certificate else ())
        if wanted and any(_matches(given.lower(), wanted) for given in names):
            return one
    return next(iter(found.entries), None)


def _matches(given: str, wanted: str) -> bool:
    return given == wanted or (given.startswith("*.") and given[1:] == wanted[wanted.find(".") :])


def _first(path: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(Path(path).read_bytes()[: 1 << 20])[0]
    except (OSError, *material.REFUSALS):
        return None


def _block(instance: Instance, entry: Entry) -> Block:
    configs = haproxy.configs(instance)
    beside = _beside(configs)
    options = dict(pairwise(entry.options))
    mode, mode_at = haproxy_config.value_of(configs, "ocsp-update.mode")
    update = options.get("ocsp-update", "").rstrip("]") or next(iter(mode), "")
    fetches = update == "on" and haproxy_config.may_update(instance.version)
    ocsp, issuer = (f"{entry.path}.{kind}" for kind in ("ocsp", "issuer"))
    read = "ocsp" in beside and Path(ocsp).exists()
    at = entry.where if "ocsp-update" in options else mode_at
    on = fetches or read
    stapling = Setting(("on" if on else "off",), entry.where if read and not fetches else at)
    proxy, proxy_at = haproxy_config.value_of(configs, "ocsp-update.httpproxy")
    block = Block(
        entry.where,
        stapling,
        file=Setting((ocsp,), entry.where) if read else Setting(),
        certificate=Setting((entry.path,), entry.where),
        chain=Setting((issuer,)) if "issuer" in beside and Path(issuer).exists() else Setting(),
        fetches=fetches,
        proxy=Setting((f"http://{proxy[0]}",), proxy_at) if proxy else Setting(),
    )
    servers = _name_servers(configs)
    return replace(block, resolver=servers) if fetches else block


def _beside(configs: Sequence[str]) -> frozenset[str]:
    """Which files beside a bundle it reads."""
    given, _ = haproxy_config.value_of(configs, "ssl-load-extra-files")
    every = not given or "all" in given
    return frozenset({"ocsp", "issuer"} if every else {*given})


def _name_servers(configs: Sequence[str]) -> Setting:
    """Those of the section that its HTTP client uses; without one HAProxy reads /etc/resolv.conf."""
    named, _ = haproxy_config.value_of(configs, "httpclient.resolvers.id")
    wanted = next(iter(named), "default")
    section = [
        one for one in haproxy_config.lines(configs) if (one.section, one.title) == ("resolvers", wanted)
    ]
    given = [one for one in section if one.words[0] == "nameserver" and len(one.words) > 2]
    if given:
        return Setting(tuple(_place(one.words[2]) for one in given), given[0].where)
    return Setting(tuple(_of_the_host()), str(_RESOLV_CONF))


def _place(text: str) -> str:
    return text.rpartition("@")[2]


def _of_the_host() -> Iterator[str]:
    try:
        text = _RESOLV_CONF.read_text("utf-8", "replace")
    except OSError:
        return
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            yield f"[{words[1]}]" if ":" in words[1] else words[1]


def resolvers(instance: Instance, block: Block) -> tuple[str, ...]:
    """Return the name servers that it asks."""
    del instance
    return block.resolver.words


def files(instance: Instance) -> tuple[str, ...]:
    """Every file that the configuration is made of, and its lists of certificates."""
    return haproxy_config.files(haproxy.configs(instance))


def loaded_at(instance: Instance) -> float | None:
    """When its worker was started."""
    return hearing.oldest(haproxy.workers(instance))


def heard(instance: Instance, block: Block | None, leaf: x509.Certificate | None) -> Heard:
    """Ask its socket what it said when it started and how its updates went; then the journal of its unit."""
    del leaf
    if instance.master is None:
        return Heard()
    path = block.certificate.value if block else ""
    unseen: list[Unseen] = []
    lines: list[str] = []
    socket = haproxy.admin_socket(instance, _SECONDS)
    if socket is None:
        takes = "`stats socket PATH mode 600 level admin` in the section global, and root"
        unseen.append(Unseen("haproxy's runtime socket", "none of level admin answers", takes))
    else:
        lines += (host.control(socket, b"show startup-logs\n", _SECONDS) or "").splitlines()
        lines += _updates(host.control(socket, b"show ssl ocsp-updates\n", _SECONDS) or "")
    unit = host.unit_of(instance.master)
    if unit is not None:
        text, more = hearing.from_journal(unit, loaded_at(instance))
        lines += text.splitlines()
        unseen += more
    mine = [line for line in lines if _about(line, path)]
    return Heard(haproxy.log_findings("\n".join(mine)), tuple(unseen))


def _updates(table: str) -> Iterator[str]:
    """Make the lines of its log from the table of its updates; those that failed last."""
    for line in table.splitlines():
        columns = [one.strip() for one in line.split("|")]
        if len(columns) >= 8 and columns[5].isdigit() and columns[6] not in ("0", "1"):
            yield f'<OCSP-UPDATE> {columns[1]} {columns[6]} "{columns[7]}" {columns[5]} {columns[4]}'


def _about(line: str, path: str) -> bool:
    """Leave out what names another certificate only."""
    named = _OF_A_FILE.findall(line)
    return not path or not named or any(one.startswith(path) for one in named)
