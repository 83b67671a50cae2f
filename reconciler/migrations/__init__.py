"""Alembic's environment and revisions of the store, run by ``reconciler.store`` whenever it is opened."""
