"""What a node tells of itself: metrics to whoever asks, traces and metrics to a collector.

    requests     what the servers count and time, cheaply; a call under way
    node         all figures of a node in one place, and their text for `/metrics`
    cluster      what a node knows of its cluster, in figures
    families     the metrics: their names, meanings and labels; `cluster_families` those of the
                 cluster, `samples` how they are made
    pulse        what only a clock can see: the event loop's lag, a flush that is stuck
    tracing      spans: a call, the node's work on it, the wait for the disk
    otlp         pushing to a collector

Why not opentelemetry's own instruments: `Counter.add` with two attributes takes 6 us and
`Histogram.record` 6.5 us on the machine that does a whole unary call in about 200 us, and its
SDK takes 100 ms to import. What is counted here takes 0.3 us a call, and the figures become
metrics when somebody asks: prometheus_client writes them as text (with exemplars, which
opentelemetry's exporter for Prometheus leaves out, and without a registry that is the whole
process's), and the SDK's periodic reader takes the same families to a collector. Neither
library is imported before it is needed.
"""
