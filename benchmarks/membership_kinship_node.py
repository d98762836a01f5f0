"""One node of kinship, for the rivals' environment: prints what its event stream says.

NAME HOST:PORT KEY [SEED...]: a line `saw OTHER STATE` for each change, as soon as it is known.
"""

import asyncio
import sys

import kinship  # type: ignore[import-not-found]

STATES = {
    kinship.MemberJoined: "alive",
    kinship.MemberRecovered: "alive",
    kinship.MemberSuspect: "suspect",
    kinship.MemberDead: "dead",
    kinship.MemberLeft: "left",
}


async def main() -> None:
    """Run until killed."""
    name, bind, key, *seeds = sys.argv[1:]
    config = kinship.Config.local(name=name, bind=bind, keys=[key], seeds=seeds)
    async with kinship.Cluster(config) as cluster:
        events = cluster.events()
        for member in cluster.members():
            print("saw", member.name, member.state.name.lower(), flush=True)
        async for event in events:
            state = STATES.get(type(event))
            if state is not None:
                print("saw", event.member.name, state, flush=True)


asyncio.run(main())
