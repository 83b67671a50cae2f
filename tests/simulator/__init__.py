"""Director, clients, Git, Borg and the wire on one virtual clock and one seed: `make simulate`.

See docs/explanation/simulator.md.
"""
