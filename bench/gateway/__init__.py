"""What the gateway adds to streams: to the first token, and to each chunk."""
