"""The operators' console: pages over the same services that the API and the command line call."""
