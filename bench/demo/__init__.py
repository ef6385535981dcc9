"""The demo: one workload on a real engine, alone and with the sidecar, and what the sidecar changed."""
