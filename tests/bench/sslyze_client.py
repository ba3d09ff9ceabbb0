"""The same work by sslyze's own API; run by the Python of its virtual environment (programs.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommand,
    ScanCommandAttemptStatusEnum,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanResult,
)

# Run as a file: its own directory is where Python looks first.
from usage import cpu, peak


def request(place: str, name: str, anchors: Path) -> ServerScanRequest:
    """Ask for one endpoint's certificate and staple, and for nothing else."""
    address, _, port = place.rpartition(":")
    return ServerScanRequest(
        server_location=ServerNetworkLocation(hostname=name, port=int(port), ip_address=address),
        network_configuration=ServerNetworkConfiguration(tls_server_name_indication=name),
        scan_commands={ScanCommand.CERTIFICATE_INFO},
        scan_commands_extra_arguments=ScanCommandsExtraArguments(
            certificate_info=CertificateInfoExtraArgument(custom_ca_file=anchors)
        ),
    )


def stapled(result: ServerScanResult) -> bool:
    """Whether the scan ended and found a staple (sslyze judges no more of it than a flag)."""
    if result.scan_result is None:
        return False
    attempt = result.scan_result.certificate_info
    if attempt.status is not ScanCommandAttemptStatusEnum.COMPLETED or attempt.result is None:
        return False
    return attempt.result.certificate_deployments[0].ocsp_response is not None


def main() -> None:
    """Do the job on standard input."""
    job = json.load(sys.stdin)
    before, begun = cpu(), perf_counter()
    scanner = Scanner(concurrent_server_scans_limit=job["concurrency"] or None)
    scanner.queue_scans([request(one, job["name"], Path(job["anchors"])) for one in job["endpoints"]])
    good = sum(1 for result in scanner.get_results() if stapled(result))
    seconds = perf_counter() - begun
    json.dump({"seconds": seconds, "cpu": cpu() - before, "good": good, "memory": peak()}, sys.stdout)


if __name__ == "__main__":
    main()
