"""How much a host tier gains on a village: none, vLLM's own by recency, and ours by due."""
