"""`make bench-verifiers`: what verification costs, beside the least that it could cost, measured in the same run.

Collateral is at hand and chains were seen before; every evidence is new. Times are CPU time of the one thread that
verifies, medians of many rounds in which verifier, floor and `dcap-qvl` take turns: what else the machine does then
weighs on all of them alike.
"""
