"""The whole-mesh simulator: many real membership machines, one heap, one seed.

Time is a number and the network is a dictionary, so a minute of a mesh costs a fraction of a
second and happens exactly the same again under the same seed. `world` is the clock and the network,
`shell` carries out what a machine asks for (and can be paused, starved, put to sleep or killed),
`checks` watches every step, `scenarios` says what is done to the mesh and what must then be true,
`measure` turns runs into figures.

    python -m tests.sim list
    python -m tests.sim replay SCENARIO SEED
    python -m tests.sim measure detect|starved|load|heal|idle --nodes N --seeds K
"""
