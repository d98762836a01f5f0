"""Pure rules: no clock, socket, loop, thread, file or global random.

`now` and `rng` come in as arguments; what should happen in the world goes out as return values.
Everything in here can be run a thousand times a second by the simulator, under any clock.
"""
