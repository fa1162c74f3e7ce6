"""The reconciler: keeps environments and the places in stores that they are bound to in step.

binding     what is tied to what, and by which rules
anchors     what both sides were when they were last known to be equal
merge       what to do with one variable, from its two sides and its anchor; pure
plan        all of that for a binding, and the brake; pure
observing   what a store has: complete scans, confirmed
applying    doing exactly what a plan says, with an intent before each write
layouts     one item a variable, or one document an environment
pacing, circuit, routing    how fast, whether at all, and where
windows, coalescing         when
pricing, prices             for how much
runner      one binding, led by the node that holds its lease
service     what callers ask for
"""
