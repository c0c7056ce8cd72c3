"""``adder-run --engine ray``: a data set in pieces, each run by one of many actors.

A piece (`pieces`) is a few thousand images that one actor reads, decodes, runs and writes the
answers of, so that what is done is known piece by piece: nothing is twice, and nothing is lost,
whatever ends a process, a machine or all of them. Ray Data hands the pieces to its pool of actors,
and again to another actor where one has died.
"""
