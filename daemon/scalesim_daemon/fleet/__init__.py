"""Several daemons beside the same engines: who drives which, what each knows of the others, and where agents live."""
