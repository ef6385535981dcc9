"""Host memory that outlives an engine process: named segments, and what their slots hold. Standard library only."""
