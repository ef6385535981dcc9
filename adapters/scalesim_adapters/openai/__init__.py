"""Any OpenAI-compatible engine: the routes that all of them have, and an adapter that needs no others."""
