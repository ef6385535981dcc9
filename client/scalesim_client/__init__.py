"""What a simulation imports: events, codec, publisher and request tags."""
