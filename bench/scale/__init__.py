"""To 1,000 engines and 10 million agents, by calculation from unit costs that are measured here."""
