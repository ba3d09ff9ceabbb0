"""A real Apache whose mod_md gets, keeps and staples its certificate itself, against a real CA."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lab import Lab, require
from lab.process import until
from lab.tools import REPOSITORY
from real_servers import MODULES

pytestmark = pytest.mark.server

NAME = "www.site.test"
ALL = os.environ.get("STAPLEGUARD_FAULTS") == "all"
_LOADED = ("mpm_event", "authz_core", "socache_shmcb", "ssl", "md")


class ManagedApache:
    """Apache on the laboratory's address for HTTPS; `told` keeps each call of its MDMessageCmd."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.folder / "apache"
        self.config = self.folder / "apache2.conf"
        self.log = self.folder / "error.log"
        self.folder.mkdir()
        self.told = lab.folder / "told"
        self.told.touch()
        # All but the last message come from a process of www-data.
        self.told.chmod(0o666)
        self.message = lab.folder / "message"
        source = f"PYTHONPATH={REPOSITORY / 'hook'}"
        ours = shlex.join(["env", source, *lab.command("hook", "--store", str(self.folder / "md"))])
        self.message.write_text(
            # www-data may not be allowed to read this checkout; what it is told is none of our business.
            f'#!/bin/sh\nshift\n[ "$1" != installed ] || said=$({ours} "$@" 2>&1)\n'
            f'echo "$(id -u) $1 $2 $? $said" >>{self.told}\n'
        )
        self.message.chmod(0o755)

    def write(self, domains: str, stapling: str = "on") -> None:
        net, folder = self.lab.net, self.folder
        where = f"{net.web}:{net.https_port}"
        loaded = "".join(f"LoadModule {one}_module {MODULES}/mod_{one}.so\n" for one in _LOADED)
        self.config.write_text(
            f'ServerRoot "{folder}"\nServerName localhost\nPidFile "{folder}/pid"\nMutex sem\n'
            f'DefaultRuntimeDir "{folder}"\n{loaded}User www-data\nGroup www-data\n'
            f'ErrorLog "{self.log}"\nLogLevel info\nListen {where} https\nStartServers 2\n'
            f'MDStoreDir "{folder}/md"\nMDCertificateAuthority https://{net.acme}:{net.acme_port}/dir\n'
            f"MDCACertificateFile {self.lab.folder}/api.pem\nMDCertificateAgreement accepted\n"
            f"MDContactEmail a@site.test\nMDCAChallenges tls-alpn-01\n"
            f"MDPortMap https:{net.https_port} http:-\n"
            f"MDInitialDelay 0\nMDMessageCmd {self.message} hook\nMDStapling {stapling}\nMDomain {domains}\n"
            f"<VirtualHost {where}>\nServerName {NAME}\nServerAlias {domains}\n"
            "Protocols http/1.1 acme-tls/1\nSSLEngine on\n</VirtualHost>\n"
        )

    def graceful(self) -> None:
        self.lab.machine.run(["apache2", "-f", str(self.config), "-k", "graceful"]).succeeded()

    def said(self) -> str:
        return self.log.read_text()[-6000:] if self.log.exists() else ""

    def calls(self, reason: str) -> list[str]:
        lines = self.told.read_text().splitlines()
        return [one for one in lines if one.split()[1:3] == [reason, NAME]]

    def await_call(self, reason: str, count: int) -> str:
        until(lambda: len(self.calls(reason)) >= count, f"message {reason} of mod_md", 30)
        return self.calls(reason)[-1]


@contextmanager
def managed() -> Iterator[ManagedApache]:
    require("pebble", "unbound", "nginx", "apache2", "openssl", "mount-namespace", "ipv6")
    with Lab() as lab:
        apache = ManagedApache(lab)
        lab.configure(apache=f'binary = "/usr/sbin/apache2"\nconfig = "{apache.config}"')
        apache.write(NAME)
        argv = ["apache2", "-D", "FOREGROUND", "-f", str(apache.config)]
        lab.machine.start("apache", argv)
        try:
            yield apache
        except Exception as error:
            error.add_note(f"{apache.told.read_text()}\n{apache.said()}\n{lab.log('apache')}")
            raise


def activated(apache: ManagedApache, count: int) -> None:
    """Wait for mod_md's renewal, restart as a person must, and see what the hook did at each message."""
    assert apache.await_call("renewed", count) == f"33 renewed {NAME} 0 "
    apache.graceful()
    # As root, within the restart: it must come back at once, and Apache serves the certificate only then.
    said = apache.await_call("installed", count)
    assert said.startswith(f"0 installed {NAME} 0 "), said
    assert "queued" in said


def retried(apache: ManagedApache) -> Any:
    ended = apache.lab.stapleguard("retry", NAME, "--json")
    assert ended.status == 0, ended.stdout + ended.stderr
    return ended.json


def test_mod_md_issues_and_we_prove_what_it_serves_and_staples() -> None:
    with managed() as apache:
        lab = apache.lab
        activated(apache, 1)
        first = retried(apache)
        assert (first["verdict"], first["mode"]) == ("verified", "watch")
        (about,) = first["findings"]
        assert about["code"] == "server.not-guarded"
        assert "mod_md keeps the certificate" in about["message"]
        assert "Nothing need be done" in about["remedy"]

        # The twin: it has no answer any more and gets none, so it staples nothing, and it is told why.
        lab.responder.know_only()
        shutil.rmtree(apache.folder / "md" / "ocsp")
        apache.graceful()
        assert apache.await_call("ocsp-errored", 1) == f"33 ocsp-errored {NAME} 0 "
        place = f"{NAME}:{lab.net.https_port}"
        told = lab.stapleguard("doctor", place, "--json").json
        assert (told["verdict"], told["cause"]) == ("degraded", "ocsp.unauthorized"), told


@pytest.mark.skipif(not ALL, reason="ten seconds: STAPLEGUARD_FAULTS=all runs it")
def test_mod_md_renews_and_the_new_leaf_is_proved() -> None:
    with managed() as apache:
        activated(apache, 1)
        first = retried(apache)
        # A name more makes it renew long before its time.
        apache.write(f"{NAME} a.site.test")
        apache.graceful()
        activated(apache, 2)
        second = retried(apache)
        assert (second["verdict"], second["mode"]) == ("verified", "watch")
        assert second["before"] == second["after"] != first["after"]
        (endpoint,) = second["endpoints"]
        assert endpoint["leaf_sha256"] == second["after"]
        assert endpoint["handshakes"]["unstapled"] == endpoint["handshakes"]["failed"] == 0
