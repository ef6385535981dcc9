"""`scalesimctl top`: agents, engines and the plan as they change, on a terminal."""
