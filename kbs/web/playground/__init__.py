"""The playground: one policy over one input, in a browser on the author's machine.

A page of its own, served by `kbs policy playground` on loopback; the broker's listeners have no pages. It evaluates in
this process, under the limits of every evaluation, and keeps nothing.
"""
