"""The one template of the NGINX configuration; rendered by netops.nginx."""
