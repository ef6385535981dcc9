"""What a live stream costs its daemon, and what lists cost, with many agents."""
