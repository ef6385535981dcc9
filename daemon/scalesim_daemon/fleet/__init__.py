"""Several daemons beside the same engines: who drives which."""
