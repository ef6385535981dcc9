"""What eviction by estimated dues reaches of what the recorded next-use index would."""
