"""Several daemons beside the same engines, with faults in between: who acts is seen at the engines."""
