"""The gateway: an OpenAI-compatible door in front of the engines, for simulations that know nothing of the sidecar."""
