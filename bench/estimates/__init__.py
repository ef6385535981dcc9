"""How well the estimators foretell the order of calls, told and untold, with nothing but events: no engine runs."""
