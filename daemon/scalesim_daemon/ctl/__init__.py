"""`scalesimctl`: ask and steer a running daemon, and look at an engine before giving it to one.

Every command is a question to the REST API and a view of the answer; `app` has them all.
"""
