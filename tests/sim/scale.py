"""Meshes of a thousand: the same machines, with what would only cost memory left out.

A million connections and ten million encoded frames prove nothing that ten nodes do not. So from
`WIRELESS_FROM` nodes on the simulated network needs no connections and carries messages as they
are, machines dial nobody, and the mesh begins settled: every table is filled beforehand.
"""

from __future__ import annotations

from dataclasses import replace

from meshd.core.membership.table import row_from
from tests.sim.mesh import Mesh

WIRELESS_FROM = 100


def settled_mesh(seed: int, nodes: int, *, encoded: bool = True) -> Mesh:
    """A mesh in which everybody knows everybody."""
    if nodes < WIRELESS_FROM:
        mesh = Mesh(seed, nodes, encoded=encoded)
        mesh.settle(20.0)
        return mesh
    mesh = Mesh(seed, nodes, encoded=False, wireless=True)
    rows = [node.machine._parts.owner.row for node in mesh.nodes]
    claims = [
        (row.claim(), row.capacity, replace(row.load, sequence=1)) for row in rows if row.load
    ]
    for node in mesh.nodes:
        table = node.machine._parts.table
        for claim, capacity, load in claims:
            if claim.node_id != node.who.node_id:
                row = row_from(claim, 0.0, "known from the start")
                row.capacity, row.load = capacity, load
                table.add(row)
        table.changes.clear()
    mesh.world.run(1.0)
    return mesh
