"""The management plane: Django project, API, console and reconciler. Never imports what handles content."""
