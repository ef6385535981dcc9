"""Pure estimators of invocation distance."""
