"""The admission webhook of a workload cluster: wires labelled Pods, and looks at what others made of them.

It holds no secret and no right at any broker. It copies what the trusted cluster rendered and registered; a wrong copy
is measured and denied. When it does not know, it refuses.
"""
