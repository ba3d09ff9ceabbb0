"""Run a transaction, a check, a rollback or a recovery over the world; decisions come from the pure rooms."""
