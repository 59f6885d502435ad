"""Is this host fit? Observations of one machine, each with what it means and what to do."""
