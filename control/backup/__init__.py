"""Backups of control, and what a control that was restored from one must not do before it knows what happened since."""
