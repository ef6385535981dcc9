"""KV event feeds: what vLLM and SGLang publish of their prefix caches, in one wire form with small differences."""
