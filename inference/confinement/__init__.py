"""Confinement: what a process gives up, for good, before it becomes a cell.

`stub` is where it starts; `confine` takes everything away in order, with `landlock` and `seccomp` as the mechanisms;
`probes` tries each of the `properties` afterwards; `seat` is the node's permission to load a model.
"""
