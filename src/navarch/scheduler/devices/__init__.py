"""Devices for claims: what drivers offer, what is taken of it, and the search for devices that satisfy claims.

    ResourceSlices ── inventory ──▶ pools of devices          claims ── requests ──▶ what is asked for
    pools that a node reaches, requests ── allocator (selectors, constraints, capacity) ──▶ results ──▶ allocation

Everything but `inventory`, which follows informers, is pure. `scheduler.plugins.dynamic_resources` puts it to use.
"""
