"""Pod bandwidth limits on this node: follows pods, puts programs and queues where they are needed.

Nothing is put anywhere before the first limit is asked for, and what nobody needs any more is
taken off. The rules are in `bandwidth`, the programs in `bpf/edt.c`.
"""
