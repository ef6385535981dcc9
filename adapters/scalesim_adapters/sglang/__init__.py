"""SGLang: `adapter` drives its stock server from outside, `plugin` runs inside it. The engine imports this package, so
nothing is imported here."""
