"""What vLLM loads into its own processes through its extension points. It imports only the standard library, vLLM,
and what vLLM depends on."""
