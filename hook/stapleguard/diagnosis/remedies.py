"""What to do, with this host's own values: the file and line, the directive, the rule, the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from stapleguard.diagnosis.facts import Block, Door, Facts, Knock, Name, Server, StapleFile
from stapleguard.diagnosis.manner import UNKNOWN, Resolving
from stapleguard.finding import CATALOGUE, Code, Finding

WHY_UNUSED: Final[Mapping[Code, str]] = {
    Code.OCSP_CERTID_UNMATCHED: "nginx, Apache and HAProxy look for SHA-1 only, and find nothing of theirs",
    Code.STAPLE_NEAR_EXPIRY: "nginx drops it at nextUpdate and asks again 300 seconds after it fetched it",
}


def _steps(*steps: str) -> str:
    return " ".join(f"({number}) {step}" for number, step in enumerate(filter(None, steps), 1))


def load_again(server: Server | None) -> str:
    """What this kind of server needs once the fault is gone; waiting alone takes long."""
    block = server.block if server else None
    if server is not None and block is not None and block.on and block.fetches:
        return server.manner.again_fetching.format(certificate=block.certificate.value) or server.manner.again
    return (server.manner if server else UNKNOWN).again


def reload(server: Server) -> str:
    """Nothing is to be mended."""
    return _steps(f"Nothing is to be mended: {load_again(server)}")


def test_refuses(server: Server, said: Finding) -> str:
    """Its own test refuses."""
    return _steps(
        "Do not restart it: it would not come up again.",
        f"Mend what it says: {said.message}",
        f"`{server.manner.test.format(config=server.config)}` must pass." if server.manner.test else "",
        load_again(server),
    )


def variable(block: Block) -> str:
    """A certificate path with a variable."""
    return _steps(
        f"In the server block at {block.where} give this name a fixed path: `ssl_certificate "
        f"/PATH/fullchain.pem;` "
        f"and its key, or a server block of its own.",
        "`nginx -t && nginx -s reload`.",
    )


def stapling_off(server: Server, block: Block, facts: Facts) -> str:
    """Stapling is not on."""
    manner, at = server.manner, block.stapling.where
    given = {"config": server.config, "certificate": block.certificate.value, "block": block.where}
    line = manner.turn_at.format(where=at) if at else manner.turn_on.format(**given)
    resolver = ""
    if manner.resolving is Resolving.AT_LOAD and not block.resolver.value and facts.names:
        resolver = "Beside it `resolver ADDRESS valid=300s;` with one of `grep nameserver /etc/resolv.conf`."
    return _steps(line, resolver, cache_line(server), load_again(server))


def cache_line(server: Server) -> str:
    """Return the line that has to stand beside it, where it is missing."""
    block = server.block
    if block is None or block.cache is None or block.cache.value:
        return ""
    return server.manner.beside.format(config=server.config)


def no_cache(server: Server) -> str:
    """It is told to staple and has nowhere to keep an answer."""
    return _steps(
        cache_line(server), "Its own test does not ask for it, only a start does.", load_again(server)
    )


def https(server: Server, block: Block, url: str) -> str:
    """A URL that the server cannot use."""
    directive, reload = server.manner.responder, f"`{server.manner.reloads}`."
    if block.responder.value == url:
        return _steps(
            f"At {block.responder.where} write `{directive} http://...`, or remove the line.", reload
        )
    return _steps(
        f"In the block at {block.where}: `{directive} {url.replace('https://', 'http://', 1)}`, if the "
        "responder answers there (the answer is signed, so plain HTTP is right).",
        'Otherwise hand it the answer: `prime = "file"`.' if server.manner.file else "",
        reload,
    )


def issuer(server: Server) -> str:
    """The issuer is not where the server looks."""
    block = server.block
    path = block.certificate.value if block else "the certificate file"
    at = f" ({block.certificate.where})" if block and block.certificate.where else ""
    return _steps(
        f"{path}{at} must hold the leaf and right behind it its issuer: with certbot name "
        f"fullchain.pem, not cert.pem; by hand `cat cert.pem chain.pem > {path}`.",
        server.manner.issuer.format(certificate=path),
        f"`openssl crl2pkcs7 -nocrl -certfile {path} | openssl pkcs7 -print_certs -noout` lists both.",
        load_again(server),
    )


def staple_file(server: Server, file: StapleFile) -> str:
    """The file is bad."""
    where = server.block.file.where if server.block else "the configuration"
    if file.denied:
        return _steps(
            f"`namei -l {file.path}` shows where {file.denied} is stopped: `chmod a+r` the file (an "
            "answer is no secret), and `chmod a+x` what leads to it.",
            server.manner.read,
            load_again(server),
        )
    return _steps(
        "`stapleguard refresh` where it is one of ours; otherwise "
        + server.manner.staple_file.format(path=file.path, where=where),
        server.manner.read,
        load_again(server),
        "Find out what should have renewed it.",
    )


def name(asked: Name, server: Server | None) -> str:
    """The name resolves nowhere."""
    configured = next((one.resolver for one in asked.configured), "")
    address, _, port = configured.rpartition(":") if configured.count(":") == 1 else (configured, "", "53")
    beside = f" and `dig +time=2 +tries=1 {asked.host} @{address} -p {port}`" if configured else ""
    return _steps(
        f"`getent ahosts {asked.host}`{beside}: mend /etc/resolv.conf or the resolver behind "
        f"it; a firewall must let "
        "UDP and TCP port 53 pass.",
        f"Does {asked.host} exist elsewhere? If nowhere, tell the CA.",
        load_again(server),
    )


def at_load(asked: Name, server: Server | None) -> str:
    """Only the system's resolver does not know it."""
    return _steps(
        f"`getent ahosts {asked.host}` must print an address: mend /etc/resolv.conf (or "
        f"/etc/hosts); the `resolver` "
        "directive does not count when the server loads.",
        "`nginx -t` must warn no more.",
        load_again(server),
    )


def after_load(server: Server, said: Finding, facts: Facts) -> str:
    """It said so when it loaded."""
    match said.code:
        case Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD if facts.names:
            return at_load(facts.names[0], server)
        case Code.SERVER_ISSUER_MISSING:
            return issuer(server)
        case _:
            return CATALOGUE[said.code].remedy


def resolver(asked: Name | None, server: Server | None) -> str:
    """The configured resolver does not do its work."""
    block = server.block if server else None
    host = asked.host if asked else "RESPONDER_HOST"
    bad = next((one.resolver for one in asked.configured if one.code or one.silent), "") if asked else ""
    bad = bad or (block.resolver.value if block else "ADDRESS")
    address, _, port = bad.rpartition(":") if bad.count(":") == 1 else (bad, "", "53")
    where = block.resolver.where if block and block.resolver.where else "/etc/resolv.conf"
    line = server.manner.resolver if server else ""
    if block and len(block.families) == 1 and asked and asked.system.addresses:
        kept = f"ipv{10 - block.families[0]}=off"
        return _steps(
            f"At {where} take `{kept}` away: {host} is at {', '.join(asked.system.addresses)}.",
            f"`dig +short {host} A {host} AAAA @{address} -p {port}` must print that.",
            load_again(server),
        )
    silent = next((one.silent[0] for one in asked.configured if one.silent), 0) if asked else 0
    kind = {4: " A", 6: " AAAA"}.get(silent, "")
    if silent and block:
        line = f"At {where} write `ipv{silent}=off` behind the addresses, or name in the place of {bad} one "
        line += "that answers that, too."
    return _steps(
        f"`dig +time=2 +tries=1 {host}{kind} @{address} -p {port}` must answer.",
        line.format(where=where, bad=bad)
        + f" Or bring that one back, and let UDP and TCP port {port} to {address} pass the firewall.",
        load_again(server),
    )


def no_resolver(server: Server, asked: Name) -> str:
    """No resolver is in force."""
    where = server.block.where if server.block else server.config
    return _steps(
        f"In the server block at {where}, or in `http`: `resolver ADDRESS valid=300s;` (one of "
        f"`grep nameserver "
        f"/etc/resolv.conf`) and `resolver_timeout 5s;`, so that {asked.host} is looked up anew.",
        "`nginx -t && nginx -s reload`; the reload alone already looks it up once.",
    )


def door(facts: Facts, code: Code, first: Door, whole: Sequence[Door]) -> str | None:
    """The responder cannot be reached, or answers badly."""
    block = facts.server.block if facts.server else None
    own = ""
    if block and block.responder.value and first.url == block.responder.value:
        directive = facts.server.manner.responder if facts.server else ""
        own = f"The URL comes from {block.responder.where}: remove `{directive}` if it is wrong."
    six = ""
    nginx = facts.server is not None and facts.server.manner.resolving is Resolving.AT_LOAD
    if nginx and ":" in first.address and any(":" not in one.address for one in whole):
        at = block.resolver.where if block and block.resolver.where else "the resolver line"
        six = f"Only IPv6 fails: add `ipv6=off` at {at}, or mend the IPv6 route."
    family = "ip6" if ":" in first.address else "ip"
    match code:
        case Code.NET_BLOCKED:
            return _steps(
                own,
                six,
                f"Let this host out to TCP {first.address} port {first.port}: `nft list ruleset`, then "
                f"for instance `nft "
                f"insert rule inet filter output {family} daddr {first.address} tcp dport {first.port} "
                f"accept`; the "
                "network's own firewall, too.",
                f"`curl -sv -o /dev/null --max-time 10 {first.url}` must connect.",
                load_again(facts.server),
            )
        case Code.NET_REFUSED | Code.NET_RESET | Code.RESPONDER_SLOW | Code.RESPONDER_HTTP_ERROR:
            return _steps(
                own,
                six,
                f"`curl -sv -o answer --max-time 20 {first.url}` shows it ({first.where}): a responder "
                f"of yours, start "
                "it and read its log; one of the CA's, see its status page and wait; a proxy in "
                "between, let it pass.",
                load_again(facts.server),
            )
        case _:
            return None


def proxy(door: Door, server: Server | None) -> str:
    """The proxy of the server's configuration, or of this program's."""
    block = server.block if server else None
    if server is not None and block is not None and block.proxy.value == door.proxy:
        return _steps(
            f"`curl -sv -x {door.proxy} -o /dev/null {door.url}` shows it.",
            server.manner.proxy.format(where=block.proxy.where),
            load_again(server),
        )
    return _steps(
        f"`curl -sv -x {door.proxy} -o /dev/null {door.url}` shows it: mend `proxy` in [fetch] "
        f"of the configuration of "
        "stapleguard, or remove it where the responder is reached without."
    )


def blocked_only(server: Server, knock: Knock | None, who: str) -> str:
    """Only the server is kept from it."""
    target = knock.target if knock else "the responder"
    return _steps(
        f"`nft list ruleset | grep -n skuid`: let {who} out to {target}.",
        f"`systemctl show {server.manner.unit or server.kind} -p IPAddressDeny -p RestrictAddressFamilies -p "
        f"PrivateNetwork`; SELinux: "
        "`setsebool -P httpd_can_network_connect on`.",
        load_again(server),
        'Or `prime = "file"`: then the server needs no way out.' if server.manner.file else "",
    )


def passing_on(server: Server, block: Block) -> str:
    """It hands out what it got, unchecked."""
    return _steps(
        server.manner.keeps_back.format(block=block.where) if block.errors.value == "on" else "",
        server.manner.passes_on.format(where=block.stapling.where or block.where),
        "What is bad about the answer stands beside this: the responder, or what is between, has to change.",
        load_again(server),
    )


def by_hand(server: Server) -> str:
    """It has no setting for it."""
    return _steps(server.manner.by_hand, server.manner.again)


def trust(server: Server, block: Block) -> str:
    """The anchors do not lead to a root."""
    at = block.trusted.where or block.where
    file = block.trusted.value or "/PATH/trusted.pem"
    return _steps(
        f"At {at}: `ssl_trusted_certificate {file};` with intermediate and root in it (`cat "
        f"chain.pem root.pem > "
        f"{file}`).",
        load_again(server),
        f"In a hurry: `ssl_stapling_verify off;` at {block.verify.where}.",
    )
