"""Nodes behind one name held against each other: who serves something else than the rest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stapleguard.diagnosis.strand import Need, Served, Sighting, Strand
from stapleguard.finding import Code, Finding, find
from stapleguard.model import Json, KeyType, Severity

# In this order: an old leaf explains another chain, and that another staple.
_FACETS: Final = ("leaf", "chain", "staple", "age", "protocol")
_FEWEST: Final = 2
_CRITICAL: Final = frozenset({"leaf", "chain"})


@dataclass(frozen=True, slots=True)
class _Node:
    """What one address showed; `rank` decides between as many nodes of one kind as of another."""

    strand: Strand
    last: Sighting
    facets: Mapping[str, str]
    rank: Mapping[str, float]


def differences(strands: Sequence[Strand]) -> tuple[Finding, ...]:
    """Name each node that differs from most of the others of its name, port and key type.

    Where no side has the majority the later leaf, the good and fresher staple and the higher protocol are
    held to be right. Staples of other bytes are ordinary, each node asks for itself; one that is older by
    more than half of its life than the freshest is not.
    """
    found: list[Finding] = []
    for members in _clusters(strands).values():
        if len({strand.endpoint for strand in members}) < _FEWEST:
            continue
        nodes = _with_age([node for strand in members if (node := _node(strand)) is not None])
        if len({node.strand.endpoint for node in nodes}) < _FEWEST:
            continue
        norms = {facet: _norm(nodes, facet) for facet in _FACETS}
        for node in nodes:
            odd = [facet for facet in _FACETS if node.facets[facet] != norms[facet]]
            if odd:
                found.append(_finding(node, odd, norms, nodes))
    return tuple(found)


def _clusters(strands: Sequence[Strand]) -> Mapping[tuple[str, int, KeyType | None], list[Strand]]:
    clusters: dict[tuple[str, int, KeyType | None], list[Strand]] = {}
    for strand in strands:
        endpoint = strand.endpoint
        name = endpoint.server_name or endpoint.host
        clusters.setdefault((name, endpoint.port, strand.key_type), []).append(strand)
    return clusters


def _node(strand: Strand) -> _Node | None:
    """Read what a node serves; None when nothing of it was seen, which is a finding of its own."""
    last = strand.last
    if last is None or last.served is Served.NOTHING or last.leaf is None:
        return None
    observation = last.observation
    chain = hashlib.sha256(b"".join(observation.chain[1:])).hexdigest()
    staple = _staple(strand, last)
    facets = {
        "leaf": last.leaf.sha256,
        "chain": chain,
        "staple": staple,
        "age": "",
        "protocol": observation.protocol or "",
    }
    rank = {
        "leaf": last.leaf.not_before.timestamp(),
        "chain": float(len(observation.chain)),
        "staple": float(staple == "good"),
        "age": 0.0,
        "protocol": float((observation.protocol or "v0")[-1:] == "3"),
    }
    return _Node(strand, last, facets, rank)


def _staple(strand: Strand, last: Sighting) -> str:
    if strand.need is Need.NOT_APPLICABLE and last.observation.staple is None:
        return "not-applicable"
    if last.observation.staple is None:
        return "absent"
    return "good" if last.good_staple else "bad"


def _with_age(nodes: Sequence[_Node]) -> list[_Node]:
    """Tell apart the staples of one leaf that are stale beside the freshest one of it."""
    aged: list[_Node] = []
    for node in nodes:
        mine = node.last.judgement
        peers = [
            peer.last.judgement.this_update
            for peer in nodes
            if peer.facets["leaf"] == node.facets["leaf"]
            and peer.last.judgement is not None
            and peer.last.judgement.this_update is not None
        ]
        age = "fresh"
        if mine is not None and mine.this_update is not None and mine.next_update is not None and peers:
            life = mine.next_update - mine.this_update
            age = "stale" if max(peers) - mine.this_update > life / 2 else "fresh"
        facets = {**node.facets, "age": age}
        aged.append(_Node(node.strand, node.last, facets, {**node.rank, "age": float(age == "fresh")}))
    return aged


def _norm(nodes: Sequence[_Node], facet: str) -> str:
    count = Counter(node.facets[facet] for node in nodes)
    best: dict[str, float] = {}
    for node in nodes:
        value = node.facets[facet]
        best[value] = max(best.get(value, 0.0), node.rank[facet])
    weight: Callable[[str], tuple[int, float]] = lambda value: (count[value], best[value])  # noqa: E731
    return max(count, key=weight)


def _finding(node: _Node, odd: Sequence[str], norms: Mapping[str, str], nodes: Sequence[_Node]) -> Finding:
    where = str(node.strand.endpoint)
    words = {
        "leaf": f"another certificate ({node.facets['leaf'][:12]} instead of {norms['leaf'][:12]})",
        "chain": "another chain",
        "staple": f"a staple that is {node.facets['staple']} instead of {norms['staple']}",
        "age": "an older staple, past half its life beside the others'",
        "protocol": f"{node.facets['protocol']} instead of {norms['protocol']}",
    }
    # A node with another certificate has another chain and staple for that reason alone.
    told = odd[:1] if odd[0] == "leaf" else odd
    evidence: dict[str, Json] = {
        "differs": list(odd),
        "this": dict(node.facets),
        "others": dict(norms),
        "nodes": len(nodes),
    }
    return find(
        Code.SERVED_NODE_DIFFERS,
        where,
        f"{where} differs from the other nodes: it serves {' and '.join(words[facet] for facet in told)}",
        severity=None if _CRITICAL.intersection(odd) else Severity.WARNING,
        evidence=evidence,
    )
